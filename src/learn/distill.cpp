// See include/billm/learn/distill.h. Back-propagation by hand between blocks (gradient
// checkpointing, Chen et al., arXiv 1604.06174): a block is computed again when its gradient is
// needed.
#include "billm/learn/distill.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <span>

#include "billm/base/error.h"
#include "billm/base/parallel.h"
#include "billm/calibrate/collect.h"
#include "kl_head.h"
#include "tunable_block.h"

namespace billm {
namespace {

struct Window {
  std::vector<int32_t> tokens;
  at::Tensor teacher;  // final_states() of the original [tokens, embed_width]
};

class Distiller {
 public:
  Distiller(const ModelWeights& original, const ModelSpec& spec, const TokenMatrix& tokens,
            const DistillConfig& config, at::ScalarType final_type, int threads, c10::Device device,
            const std::vector<DistilledBlock>& blocks, const FinalLayers& last)
      : original_(original),
        spec_(spec),
        config_(config),
        threads_(threads),
        device_(device),
        rope_(make_rope(spec, std::min(config.window, tokens.cols), device)),
        last_(last),
        order_(0, 0) {
    if (last.norm.defined()) final_norm_.emplace(last.norm, final_type);
    for (const DistilledBlock& block : blocks) {
      blocks_.emplace_back(block.block, block.linears, block.types, config.margin);
    }
    for (int64_t row = 0; row < tokens.rows; ++row) {
      const std::span<const int32_t> ids = tokens.row(row);
      for (size_t first = 0; first + 1 < ids.size(); first += static_cast<size_t>(config.window)) {
        const size_t count = std::min(static_cast<size_t>(config.window), ids.size() - first);
        windows_.push_back({{ids.begin() + static_cast<int64_t>(first),
                             ids.begin() + static_cast<int64_t>(first + count)},
                            {}});
      }
    }
    if (windows_.size() < 2) {
      throw Error(ErrorCode::kUsage, "--distill: expected at least two windows of calibration text",
                  "give more sequences (--nsamples)");
    }
    run_teacher();
    const size_t held_out = std::max<size_t>(1, windows_.size() / 8);
    for (size_t i = windows_.size() - held_out; i < windows_.size(); ++i) held_out_.push_back(i);
    order_ = Order(windows_.size() - held_out, config.seed);
  }

  TuneReport run(const std::function<void(int, double)>& progress,
                 std::vector<DistilledBlock>* blocks, FinalLayers* last) {
    const auto keep = [&] {
      for (size_t b = 0; b < blocks_.size(); ++b) {
        blocks_[b].store(device_, &(*blocks)[b].block, &(*blocks)[b].linears, false);
      }
      *last = last_layers();
    };
    return learn(
        config_.steps, [&](int step) { progress(step, train_step(step)); },
        [this] { return held_out_loss(); }, keep);
  }

 private:
  std::vector<at::Tensor> embed_all(const std::vector<size_t>& chosen) const {
    const Embedding embed(original_, spec_);
    std::vector<at::Tensor> hidden;
    for (const size_t i : chosen) {
      hidden.push_back(embed(windows_[i].tokens).to(device_));
    }
    return hidden;
  }

  FinalLayers last_layers() const {
    FinalLayers last = last_;
    if (final_norm_) last.norm = final_norm_->weight().to(device_);
    return last;
  }

  void run_teacher() {
    const at::NoGradGuard no_grad;
    std::vector<size_t> all(windows_.size());
    for (size_t i = 0; i < all.size(); ++i) all[i] = i;
    std::vector<at::Tensor> hidden = embed_all(all);
    for (int64_t b = 0; b < spec_.blocks(); ++b) {
      const Block block = load_block(original_, spec_, b, threads_, device_);
      advance(spec_, block, rope_, hidden, threads_);
    }
    const FinalLayers last = load_final_layers(original_, spec_, device_);
    for (size_t i = 0; i < all.size(); ++i) {
      windows_[i].teacher = final_states(spec_, last, hidden[i]);
    }
  }

  double held_out_loss() {
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> hidden = embed_all(held_out_);
    for (TunableBlock& block : blocks_) {
      advance(spec_, block.leaves(device_, false), rope_, hidden, threads_);
    }
    std::vector<double> losses(hidden.size());
    const FinalLayers last = last_layers();
    parallel_for(static_cast<int64_t>(hidden.size()), threads_, [&](int64_t i) {
      const size_t slot = static_cast<size_t>(i);
      losses[slot] =
          kl_head(original_, spec_, hidden[slot], last, windows_[held_out_[slot]].teacher, false)
              .loss;
    });
    std::vector<int64_t> tokens;
    for (const size_t i : held_out_) {
      tokens.push_back(static_cast<int64_t>(windows_[i].tokens.size()));
    }
    return mean_loss(losses, tokens, "billm distill");
  }

  // Returns the mean loss of the step's windows, before it.
  double train_step(int step) {
    const double rate = rate_at(step, config_.steps);
    const StepRates rates = {{rate * config_.code_rate, rate * config_.scale_rate},
                             rate * config_.norm_rate};
    const std::vector<size_t> chosen = order_.next(static_cast<size_t>(config_.batch));
    const auto windows = static_cast<int64_t>(chosen.size());
    std::vector<std::vector<at::Tensor>> inputs;  // [block][window]
    std::vector<at::Tensor> hidden = embed_all(chosen);
    {
      const at::NoGradGuard no_grad;
      for (TunableBlock& block : blocks_) {
        inputs.push_back(hidden);
        advance(spec_, block.leaves(device_, false), rope_, hidden, threads_);
      }
    }
    std::vector<KlHead> heads(chosen.size());
    const FinalLayers last = last_layers();
    parallel_for(windows, threads_, [&](int64_t i) {
      const size_t slot = static_cast<size_t>(i);
      heads[slot] =
          kl_head(original_, spec_, hidden[slot], last, windows_[chosen[slot]].teacher, true);
    });
    double loss = 0;
    at::Tensor norm;
    for (const KlHead& result : heads) {
      loss += result.loss / static_cast<double>(heads.size());
      norm = norm.defined() ? norm.add(result.norm) : result.norm;
    }
    if (final_norm_) final_norm_->step(norm, rates.norm);
    for (size_t b = blocks_.size(); b-- > 0;) {
      std::vector<std::vector<at::Tensor>> gradients(chosen.size());
      parallel_for(windows, threads_, [&](int64_t i) {
        const size_t slot = static_cast<size_t>(i);
        const at::AutoGradMode mode(true);
        const Block leaves = blocks_[b].leaves(device_, true);
        const at::Tensor input = inputs[b][slot].detach().set_requires_grad(true);
        std::vector<at::Tensor> variables = TunableBlock::variables(leaves);
        variables.push_back(input);
        gradients[slot] = torch::autograd::grad({forward_block(spec_, leaves, input, rope_)},
                                                variables, {heads[slot].hidden});
        heads[slot].hidden = gradients[slot].back();
        gradients[slot].pop_back();
      });
      add_to_first(&gradients);
      blocks_[b].step(gradients.front(), rates, threads_);
      inputs.pop_back();
    }
    return loss;
  }

  const ModelWeights& original_;
  const ModelSpec& spec_;
  const DistillConfig& config_;
  const int threads_;
  const c10::Device device_;
  Rope rope_;
  FinalLayers last_;
  std::optional<LatentNorm> final_norm_;  // learns last_.norm, if there is one
  std::vector<TunableBlock> blocks_;
  std::vector<Window> windows_;
  std::vector<size_t> held_out_;
  Order order_;
};

}  // namespace

// Decoded, original and latent weight and two moments in fp32; region and code, now, at the start
// and of the best state.
int64_t distill_bytes(int64_t weights) { return (5 * 4 + 3 * 2) * weights; }

TuneReport distill(const ModelWeights& original, const ModelSpec& spec, const TokenMatrix& tokens,
                   const DistillConfig& config, at::ScalarType final_type, int threads,
                   c10::Device device, const std::function<void(int step, double loss)>& progress,
                   std::vector<DistilledBlock>* blocks, FinalLayers* last) {
  const auto start = std::chrono::steady_clock::now();
  Distiller distiller(original, spec, tokens, config, final_type, threads, device, *blocks, *last);
  TuneReport report = distiller.run(progress, blocks, last);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace billm
