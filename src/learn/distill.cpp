// See include/billm/learn/distill.h. Back-propagation by hand between blocks (gradient
// checkpointing, Chen et al., arXiv 1604.06174): a block is computed again when its gradient is
// needed.
#include "billm/learn/distill.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <span>

#include "billm/base/parallel.h"
#include "billm/base/stopwatch.h"
#include "billm/calibrate/collect.h"
#include "kl_head.h"
#include "trainable_block.h"

namespace billm {
namespace {

struct Window {
  std::vector<int32_t> tokens;
  at::Tensor teacher;  // final_states() of the original [tokens, embed_width]
};

std::vector<Window> make_windows(const TokenMatrix& tokens, int64_t length) {
  std::vector<Window> windows;
  for (int64_t row = 0; row < tokens.rows; ++row) {
    const std::span<const int32_t> ids = tokens.row(row);
    for (size_t first = 0; first + 1 < ids.size(); first += static_cast<size_t>(length)) {
      const size_t count = std::min(static_cast<size_t>(length), ids.size() - first);
      const std::span<const int32_t> window = ids.subspan(first, count);
      windows.push_back({{window.begin(), window.end()}, {}});
    }
  }
  return windows;
}

class ModelStage : public Stage {
 public:
  ModelStage(const ModelWeights& original, const ModelSpec& spec, const TokenMatrix& tokens,
             const DistillConfig& config, at::ScalarType final_type, int threads,
             c10::Device device, std::vector<DistilledBlock>& blocks, const FinalLayers& last)
      : original_(original),
        spec_(spec),
        threads_(threads),
        device_(device),
        rope_(make_rope(spec, std::min(config.window, tokens.cols), device)),
        last_(last),
        windows_(make_windows(tokens, config.window)),
        training_(windows_.size() - held_out_windows(windows_.size(), "billm distill",
                                                     "give more sequences (--nsamples)")) {
    if (last.norm.defined()) final_norm_.emplace(last.norm, final_type, config.norm_rate);
    for (DistilledBlock& block : blocks) {
      blocks_.push_back(std::make_unique<TrainableBlock>(
          block.block, block.linears, block.types, LearnRates{config.code_rate, config.scale_rate},
          config.norm_rate, config.margin, device, threads));
      for (auto& [suffix, linear] : block.linears) linear.original = at::Tensor();  // done with
    }
    run_teacher();
  }

  size_t training_windows() const { return training_; }

  void add_to(Trainer& trainer) {
    for (size_t b = 0; b < blocks_.size(); ++b) {
      blocks_[b]->add_to(trainer, std::to_string(b) + ".");
    }
    if (final_norm_) norm_number_ = trainer.add("final_norm", &*final_norm_);
  }

  double train(const std::vector<size_t>& chosen, Trainer& trainer) override {
    const auto windows = static_cast<int64_t>(chosen.size());
    std::vector<std::vector<at::Tensor>> inputs;  // [block][window]
    std::vector<at::Tensor> hidden = embed_all(chosen);
    {
      const at::NoGradGuard no_grad;
      for (const auto& block : blocks_) {
        inputs.push_back(hidden);
        advance(spec_, block->present(threads_), rope_, hidden, threads_);
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
    if (final_norm_) trainer.update(norm_number_, last.norm, norm);
    for (size_t b = blocks_.size(); b-- > 0;) {
      const Block present = blocks_[b]->present(threads_);
      std::vector<std::vector<at::Tensor>> gradients(chosen.size());
      parallel_for(windows, threads_, [&](int64_t i) {
        const size_t slot = static_cast<size_t>(i);
        const at::AutoGradMode mode(true);
        const Block leaves = blocks_[b]->leaves(present);
        const at::Tensor input = inputs[b][slot].detach().set_requires_grad(true);
        std::vector<at::Tensor> variables = blocks_[b]->variables(leaves);
        variables.push_back(input);
        gradients[slot] = torch::autograd::grad({forward_block(spec_, leaves, input, rope_)},
                                                variables, {heads[slot].hidden});
        heads[slot].hidden = gradients[slot].back();
        gradients[slot].pop_back();
      });
      add_to_first(&gradients);
      blocks_[b]->update(trainer, present, gradients.front());
      inputs.pop_back();
    }
    return loss;
  }

  double held_out() override {
    const at::NoGradGuard no_grad;
    std::vector<size_t> held_out;
    std::vector<int64_t> tokens;
    for (size_t i = training_; i < windows_.size(); ++i) {
      held_out.push_back(i);
      tokens.push_back(static_cast<int64_t>(windows_[i].tokens.size()));
    }
    std::vector<at::Tensor> hidden = embed_all(held_out);
    for (const auto& block : blocks_) {
      advance(spec_, block->present(threads_), rope_, hidden, threads_);
    }
    std::vector<double> losses(hidden.size());
    const FinalLayers last = last_layers();
    parallel_for(static_cast<int64_t>(hidden.size()), threads_, [&](int64_t i) {
      const size_t slot = static_cast<size_t>(i);
      losses[slot] =
          kl_head(original_, spec_, hidden[slot], last, windows_[held_out[slot]].teacher, false)
              .loss;
    });
    return mean_loss(losses, tokens, "billm distill");
  }

  void store(std::vector<DistilledBlock>* blocks, FinalLayers* last) const {
    for (size_t b = 0; b < blocks_.size(); ++b) {
      blocks_[b]->store(&(*blocks)[b].block, &(*blocks)[b].linears, threads_);
    }
    *last = last_layers();
  }

 private:
  std::vector<at::Tensor> embed_all(const std::vector<size_t>& chosen) const {
    const Embedding embed(original_, spec_);
    std::vector<at::Tensor> hidden;
    for (const size_t i : chosen) hidden.push_back(embed(windows_[i].tokens).to(device_));
    return hidden;
  }

  FinalLayers last_layers() const {
    FinalLayers last = last_;
    if (final_norm_) last.norm = final_norm_->weight(threads_);
    return last;
  }

  void run_teacher() {
    const at::NoGradGuard no_grad;
    std::vector<size_t> all(windows_.size());
    for (size_t i = 0; i < all.size(); ++i) all[i] = i;
    std::vector<at::Tensor> teacher =
        teacher_states(original_, spec_, rope_, embed_all(all), threads_, device_);
    for (size_t i = 0; i < all.size(); ++i) windows_[i].teacher = std::move(teacher[i]);
  }

  const ModelWeights& original_;
  const ModelSpec& spec_;
  const int threads_;
  const c10::Device device_;
  const Rope rope_;
  const FinalLayers last_;
  std::vector<Window> windows_;
  const size_t training_;  // of the windows, the first ones; the others are held out
  std::optional<NormTrainable> final_norm_;  // learns last_.norm, if there is one
  size_t norm_number_ = 0;
  std::vector<std::unique_ptr<TrainableBlock>> blocks_;
};

}  // namespace

// The bytes of so many elements of planes. On the device: the level's byte; or a latent and its
// moments in fp32, and the level of the best state. On the host: region and code, at the start and
// here.
DistillBytes distill_bytes(int64_t latents, const DistillConfig& config) {
  return {(config.code_rate > 0 ? 3 * 4 + 1 : 1) * latents, 4 * latents};
}

DistillResult distill(const ModelWeights& original, const ModelSpec& spec,
                      const TokenMatrix& tokens, const DistillConfig& config,
                      at::ScalarType final_type, int threads, c10::Device device,
                      const DistillStep& after, const TrainingState* resumed,
                      const std::string& where, std::vector<DistilledBlock>* blocks,
                      FinalLayers* last) {
  const Stopwatch clock;
  ModelStage stage(original, spec, tokens, config, final_type, threads, device, *blocks, *last);
  Trainer trainer(config.steps, stage.training_windows(), config.batch, config.seed, threads);
  stage.add_to(trainer);
  if (resumed != nullptr) trainer.restore(*resumed, where);
  DistillResult result;
  result.tune = trainer.run(stage, [&](int step, double loss) {
    if (after) after(step, loss, [&] { return trainer.state(); });
  });
  if (result.tune.best_step > 0) stage.store(blocks, last);
  result.losses = trainer.losses();
  result.tune.seconds = clock.seconds();
  return result;
}

}  // namespace billm
