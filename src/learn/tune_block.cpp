// See include/billm/learn/tune_block.h. The windows of a step are independent items, each computed
// by one thread; their gradients are added in the windows' order, so results do not depend on
// threads.
#include "billm/learn/tune_block.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <iterator>
#include <optional>

#include "billm/base/parallel.h"
#include "billm/base/stopwatch.h"
#include "trainable_block.h"

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

class BlockStage : public Stage {
 public:
  BlockStage(const ModelSpec& spec, const Rope& rope, const std::vector<at::Tensor>& inputs,
             const std::vector<at::Tensor>& targets, const HeavyTokens& heavy,
             const TuneConfig& config, int threads, TrainableBlock& block)
      : spec_(spec),
        rope_(rope),
        inputs_(inputs),
        targets_(targets),
        heavy_(heavy),
        threads_(threads),
        block_(block),
        windows_(make_windows(inputs, config.window)),
        training_(windows_.size() -
                  held_out_windows(windows_.size(), "--tune",
                                   "give more sequences (--nsamples), or smaller windows "
                                   "(--tune-window)")),
        present_(block.present(threads)),
        heavy_error_(heavy_error()) {}

  size_t training_windows() const { return training_; }

  double train(const std::vector<size_t>& chosen, Trainer& trainer) override {
    std::vector<double> losses(chosen.size());
    std::vector<std::vector<at::Tensor>> gradients(chosen.size());
    parallel_for(static_cast<int64_t>(chosen.size()), threads_, [&](int64_t i) {
      const size_t slot = static_cast<size_t>(i);
      const at::AutoGradMode mode(true);
      const Block leaves = block_.leaves(present_);
      const at::Tensor loss = loss_of(leaves, windows_[chosen[slot]]);
      gradients[slot] = torch::autograd::grad({loss}, block_.variables(leaves));
      losses[slot] = loss.item<double>();
    });
    add_to_first(&gradients);
    block_.update(trainer, present_, gradients.front());
    present_ = Block();  // its memory goes before the next one is made
    present_ = block_.present(threads_);
    double sum = 0;
    for (const double loss : losses) sum += loss;
    return sum / static_cast<double>(losses.size());
  }

  double held_out() override {
    const size_t count = windows_.size() - training_;
    std::vector<double> losses(count);
    std::vector<int64_t> tokens(count);  // as often as they count
    parallel_for(static_cast<int64_t>(count), threads_, [&](int64_t i) {
      const at::NoGradGuard no_grad;
      const Window& window = windows_[training_ + static_cast<size_t>(i)];
      tokens[static_cast<size_t>(i)] = counted(window);
      losses[static_cast<size_t>(i)] = loss_of(present_, window).item<double>();
    });
    return mean_loss(losses, tokens, "--tune");
  }

  // A token with massive activations is one of thousands even as often as it counts, but what the
  // blocks behind make of all others rests on it: nothing may be gained at its cost.
  bool may_be_kept() override { return heavy_error() <= 1.1 * heavy_error_ + 1e-3; }

 private:
  // The mean relative error of the heavy tokens, those of training windows too; 0 if there are
  // none.
  double heavy_error() const {
    std::vector<double> errors(windows_.size());
    int64_t count = 0;
    for (const Window& window : windows_) count += std::ssize(heavy_in(window));
    if (count == 0) return 0;
    parallel_for(std::ssize(windows_), threads_, [&](int64_t i) {
      const at::NoGradGuard no_grad;
      const Window& window = windows_[static_cast<size_t>(i)];
      const std::vector<int64_t> heavy = heavy_in(window);
      if (heavy.empty()) return;
      const at::Tensor relative = relative_errors(present_, window);
      for (const int64_t token : heavy) {
        errors[static_cast<size_t>(i)] += relative[token - window.first].item<double>();
      }
    });
    double sum = 0;
    for (const double error : errors) sum += error;
    return sum / static_cast<double>(count);
  }

  // [tokens of the window]
  at::Tensor relative_errors(const Block& block, const Window& window) const {
    const at::Tensor hidden = inputs_[window.sequence].narrow(0, 0, window.end);
    const at::Tensor output = forward_block(spec_, block, hidden, rope_, window.first);
    const at::Tensor target =
        targets_[window.sequence].narrow(0, window.first, window.end - window.first);
    // A token whose target is zero (an embedding of zeros) has no relative error: it is left out.
    const at::Tensor norm = target.square().sum(at::IntArrayRef{1});
    const at::Tensor empty = norm.eq(0);
    const at::Tensor error = output.sub(target).square().sum(at::IntArrayRef{1});
    return error.div(norm.masked_fill(empty, 1)).masked_fill(empty, 0);
  }

  at::Tensor loss_of(const Block& block, const Window& window) const {
    const at::Tensor relative = relative_errors(block, window);
    const std::vector<int64_t> heavy = heavy_in(window);
    if (heavy.empty()) return relative.mean();
    at::Tensor sum = relative.sum();
    for (const int64_t token : heavy) {
      sum = sum.add(relative.select(0, token - window.first), heavy_.times - 1);
    }
    return sum.div(static_cast<double>(counted(window)));
  }

  // The tokens of a window that count more.
  std::vector<int64_t> heavy_in(const Window& window) const {
    std::vector<int64_t> tokens;
    if (heavy_.positions.empty()) return tokens;
    for (const int64_t token : heavy_.positions.at(window.sequence)) {
      if (window.first <= token && token < window.end) tokens.push_back(token);
    }
    return tokens;
  }

  // The tokens of a window, each as often as it counts.
  int64_t counted(const Window& window) const {
    return window.end - window.first + (heavy_.times - 1) * std::ssize(heavy_in(window));
  }

  const ModelSpec& spec_;
  const Rope& rope_;
  const std::vector<at::Tensor>& inputs_;
  const std::vector<at::Tensor>& targets_;
  const HeavyTokens& heavy_;
  const int threads_;
  TrainableBlock& block_;
  const std::vector<Window> windows_;
  const size_t training_;  // of the windows, the first ones; the others are held out
  Block present_;
  const double heavy_error_;  // before the first step
};

}  // namespace

TuneReport tune_block(const ModelSpec& spec, const Rope& rope,
                      const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>& targets,
                      const HeavyTokens& heavy, const TuneConfig& config, const NormTypes& types,
                      int threads, Block* block, std::map<std::string, TunedLinear>* linears) {
  const Stopwatch clock;
  TrainableBlock trainable(*block, *linears, types, {config.code_rate, config.scale_rate},
                           config.norm_rate, config.margin, inputs.front().device(), threads);
  BlockStage stage(spec, rope, inputs, targets, heavy, config, threads, trainable);
  Trainer trainer(config.steps, stage.training_windows(), config.batch, config.seed, threads);
  trainable.add_to(trainer, "");
  TuneReport report = trainer.run(stage);
  if (report.best_step > 0) trainable.store(block, linears, threads);
  report.seconds = clock.seconds();
  return report;
}

}  // namespace billm
