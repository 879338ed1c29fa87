// See include/billm/learn/tune_block.h. The windows of a step are independent items, each computed
// by one thread; their gradients are added in the windows' order, so results do not depend on
// threads.
#include "billm/learn/tune_block.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <chrono>

#include "billm/base/error.h"
#include "billm/base/parallel.h"
#include "tunable_block.h"

namespace billm {
namespace {

struct Window {
  size_t sequence;
  int64_t first, end;  // tokens
};

std::vector<Window> make_windows(const std::vector<at::Tensor>& inputs, int64_t length) {
  std::vector<Window> windows;
  for (size_t i = 0; i < inputs.size(); ++i) {
    for (int64_t first = 0; first < inputs[i].size(0); first += length) {
      windows.push_back({i, first, std::min(inputs[i].size(0), first + length)});
    }
  }
  return windows;
}

// Loss and gradients of one window; the gradients are empty in evaluation.
struct WindowResult {
  double loss = 0;
  std::vector<at::Tensor> gradients;  // norms, then linears in map order
};

class BlockTuner {
 public:
  BlockTuner(const ModelSpec& spec, const Rope& rope, const std::vector<at::Tensor>& inputs,
             const std::vector<at::Tensor>& targets, const TuneConfig& config, int threads,
             c10::Device device, TunableBlock block)
      : spec_(spec),
        rope_(rope),
        inputs_(inputs),
        targets_(targets),
        config_(config),
        threads_(threads),
        device_(device),
        block_(std::move(block)),
        windows_(make_windows(inputs, config.window)),
        order_(0, 0) {
    if (windows_.size() < 2) {
      throw Error(ErrorCode::kUsage, "--tune: expected at least two windows of calibration text",
                  "give more sequences (--nsamples), or smaller windows (--tune-window)");
    }
    const size_t held_out = std::max<size_t>(1, windows_.size() / 8);
    held_out_.assign(windows_.end() - static_cast<int64_t>(held_out), windows_.end());
    windows_.resize(windows_.size() - held_out);
    order_ = Order(windows_.size(), config.seed);
  }

  TuneReport run(Block* block, std::map<std::string, TunedLinear>* linears) {
    return learn(
        config_.steps, [this](int step) { train_step(step); }, [this] { return held_out_loss(); },
        [&] { block_.store(device_, block, linears, true); });
  }

 private:
  WindowResult compute(const Window& window, bool gradients) {
    const at::AutoGradMode mode(gradients);
    const Block block = block_.leaves(device_, gradients);
    const at::Tensor hidden = inputs_[window.sequence].narrow(0, 0, window.end);
    const at::Tensor output = forward_block(spec_, block, hidden, rope_, {}, window.first);
    const at::Tensor target =
        targets_[window.sequence].narrow(0, window.first, window.end - window.first);
    // A token whose target is zero (an embedding of zeros) has no relative error: it is left out.
    const at::Tensor norm = target.square().sum(at::IntArrayRef{1});
    const at::Tensor empty = norm.eq(0);
    const at::Tensor error = output.sub(target).square().sum(at::IntArrayRef{1});
    const at::Tensor loss = error.div(norm.masked_fill(empty, 1)).masked_fill(empty, 0).mean();
    WindowResult result;
    result.loss = loss.item<double>();
    if (gradients) result.gradients = torch::autograd::grad({loss}, TunableBlock::variables(block));
    return result;
  }

  double held_out_loss() {
    std::vector<double> losses(held_out_.size());
    parallel_for(static_cast<int64_t>(losses.size()), threads_, [&](int64_t i) {
      losses[static_cast<size_t>(i)] = compute(held_out_[static_cast<size_t>(i)], false).loss;
    });
    std::vector<int64_t> tokens;
    for (const Window& window : held_out_) tokens.push_back(window.end - window.first);
    return mean_loss(losses, tokens, "--tune");
  }

  void train_step(int step) {
    const std::vector<size_t> chosen = order_.next(static_cast<size_t>(config_.batch));
    std::vector<std::vector<at::Tensor>> gradients(chosen.size());
    parallel_for(static_cast<int64_t>(chosen.size()), threads_, [&](int64_t i) {
      const size_t slot = static_cast<size_t>(i);
      gradients[slot] = compute(windows_[chosen[slot]], true).gradients;
    });
    add_to_first(&gradients);
    const double rate = rate_at(step, config_.steps);
    block_.step(gradients.front(),
                {{rate * config_.code_rate, rate * config_.scale_rate}, rate * config_.norm_rate},
                threads_);
  }

  const ModelSpec& spec_;
  const Rope& rope_;
  const std::vector<at::Tensor>& inputs_;
  const std::vector<at::Tensor>& targets_;
  const TuneConfig& config_;
  const int threads_;
  const c10::Device device_;
  TunableBlock block_;
  std::vector<Window> windows_, held_out_;
  Order order_;
};

}  // namespace

TuneReport tune_block(const ModelSpec& spec, const Rope& rope,
                      const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>& targets,
                      const TuneConfig& config, const NormTypes& types, int threads, Block* block,
                      std::map<std::string, TunedLinear>* linears) {
  const auto start = std::chrono::steady_clock::now();
  BlockTuner tuner(spec, rope, inputs, targets, config, threads, inputs.front().device(),
                   TunableBlock(*block, *linears, types, config.margin));
  TuneReport report = tuner.run(block, linears);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace billm
