// See include/billm/tune/tune_block.h. The windows of a step are independent items, each computed by
// one thread; their gradients are added in the windows' order, so results do not depend on threads.
#include "billm/tune/tune_block.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>
#include <random>

#include "billm/base/error.h"
#include "billm/base/parallel.h"
#include "latent_linear.h"

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

// A vector of norm weights, learned by Adam in fp32 and used as its file will store it.
class LatentNorm {
 public:
  LatentNorm(const at::Tensor& weight, at::ScalarType dtype)
      : dtype_(dtype),
        latent_(weight.clone()),
        mean_(weight.mul(0)),
        square_(weight.mul(0)),
        unit_(weight.abs().mean().item<double>()) {}
  at::Tensor weight() const { return latent_.to(dtype_).to(at::kFloat); }
  void step(const at::Tensor& gradient, double rate) {
    constexpr double kBeta1 = 0.9, kBeta2 = 0.99;
    ++steps_;
    mean_.mul_(kBeta1).add_(gradient, 1 - kBeta1);
    square_.mul_(kBeta2).add_(gradient.square(), 1 - kBeta2);
    const at::Tensor divisor = square_.div(1 - std::pow(kBeta2, steps_)).sqrt_().add_(1e-30);
    latent_.sub_(mean_.div(divisor).mul_(rate * unit_ / (1 - std::pow(kBeta1, steps_))));
  }

 private:
  at::ScalarType dtype_;
  at::Tensor latent_, mean_, square_;
  double unit_;
  int steps_ = 0;
};

// Loss and gradients of one window; the gradients are empty in evaluation.
struct WindowResult {
  double loss = 0;
  std::vector<at::Tensor> gradients;  // norms, then linears in map order
};

class BlockTuner {
 public:
  BlockTuner(const ModelSpec& spec, const Rope& rope, const std::vector<at::Tensor>& inputs,
             const std::vector<at::Tensor>& targets, const TuneConfig& config,
             at::ScalarType norm_dtype, int threads, const Block& block,
             std::map<std::string, TunedLinear>& linears)
      : spec_(spec),
        rope_(rope),
        inputs_(inputs),
        targets_(targets),
        config_(config),
        threads_(threads),
        device_(block.attention_norm.device()),
        attention_norm_(block.attention_norm.cpu(), norm_dtype),
        mlp_norm_(block.mlp_norm.cpu(), norm_dtype),
        random_(config.seed) {
    for (auto& [suffix, linear] : linears) {
      latents_.try_emplace(suffix, linear.codes, linear.original.const_data_ptr<float>(),
                           config.margin);
    }
    windows_ = make_windows(inputs, config.window);
    if (windows_.size() < 2) {
      throw Error(ErrorCode::kUsage, "--tune: expected at least two windows of calibration text",
                  "give more sequences (--nsamples), or smaller windows (--tune-window)");
    }
    const size_t held_out = std::max<size_t>(1, windows_.size() / 8);
    held_out_.assign(windows_.end() - static_cast<int64_t>(held_out), windows_.end());
    windows_.resize(windows_.size() - held_out);
  }

  TuneReport run(Block* block, std::map<std::string, TunedLinear>* linears) {
    TuneReport report;
    report.loss_before = report.loss_after = held_out_loss();
    const int checks = 4;
    for (int step = 1; step <= config_.steps; ++step) {
      train_step(step);
      if (step * checks / config_.steps == (step - 1) * checks / config_.steps) continue;
      const double loss = held_out_loss();
      if (!(loss < report.loss_after)) continue;
      report.loss_after = loss;
      report.best_step = step;
      for (auto& [suffix, linear] : *linears) linear.codes = latents_.at(suffix).codes();
      block->attention_norm = attention_norm_.weight().to(device_);
      block->mlp_norm = mlp_norm_.weight().to(device_);
      for (auto& [suffix, latent] : latents_) block->linears[suffix] = decoded(latent).clone();
    }
    return report;
  }

 private:
  at::Tensor decoded(LatentLinear& latent) const {
    return at::from_blob(latent.weight(), {latent.rows(), latent.cols()}, at::kFloat).to(device_);
  }

  // The block of the present latents over shared memory; every call makes leaves of its own.
  Block leaves(bool gradients) {
    Block block;
    block.attention_norm = attention_norm_.weight().to(device_).set_requires_grad(gradients);
    block.mlp_norm = mlp_norm_.weight().to(device_).set_requires_grad(gradients);
    for (auto& [suffix, latent] : latents_) {
      block.linears[suffix] = decoded(latent).set_requires_grad(gradients);
    }
    return block;
  }

  WindowResult compute(const Window& window, bool gradients) {
    const at::AutoGradMode mode(gradients);
    const Block block = leaves(gradients);
    const at::Tensor hidden = inputs_[window.sequence].narrow(0, 0, window.end);
    const at::Tensor output =
        forward_block(spec_, block, hidden, rope_, {}, Until::kEnd, window.first);
    const at::Tensor target =
        targets_[window.sequence].narrow(0, window.first, window.end - window.first);
    const at::Tensor norm = target.square().sum(at::IntArrayRef{1});
    const at::Tensor loss =
        output.sub(target).square().sum(at::IntArrayRef{1}).div(norm).mean();
    WindowResult result;
    result.loss = loss.item<double>();
    if (!gradients) return result;
    std::vector<at::Tensor> variables = {block.attention_norm, block.mlp_norm};
    for (const auto& [suffix, weight] : block.linears) variables.push_back(weight);
    result.gradients = torch::autograd::grad({loss}, variables);
    return result;
  }

  std::vector<WindowResult> compute_all(const std::vector<Window>& windows, bool gradients) {
    std::vector<WindowResult> results(windows.size());
    parallel_for(static_cast<int64_t>(windows.size()), threads_, [&](int64_t i) {
      results[static_cast<size_t>(i)] = compute(windows[static_cast<size_t>(i)], gradients);
    });
    return results;
  }

  double held_out_loss() {
    double sum = 0, tokens = 0;
    const std::vector<WindowResult> results = compute_all(held_out_, false);
    for (size_t i = 0; i < results.size(); ++i) {
      const auto count = static_cast<double>(held_out_[i].end - held_out_[i].first);
      sum += count * results[i].loss;
      tokens += count;
    }
    if (!std::isfinite(sum)) {
      throw Error(ErrorCode::kFailure, "--tune: the loss of a block is not finite",
                  "lower --tune-rate, or leave out --tune");
    }
    return sum / tokens;
  }

  // The next windows in an order that is shuffled anew on every pass.
  std::vector<Window> next_windows() {
    std::vector<Window> chosen;
    const size_t count = std::min(windows_.size(), static_cast<size_t>(config_.batch));
    while (chosen.size() < count) {
      if (next_ == 0) {
        for (size_t i = windows_.size() - 1; i > 0; --i) {  // std::shuffle differs by library
          std::swap(windows_[i], windows_[random_() % (i + 1)]);
        }
      }
      chosen.push_back(windows_[next_]);
      next_ = (next_ + 1) % windows_.size();
    }
    return chosen;
  }

  void train_step(int step) {
    std::vector<WindowResult> results = compute_all(next_windows(), true);
    std::vector<at::Tensor>& sum = results.front().gradients;
    for (size_t i = 1; i < results.size(); ++i) {
      for (size_t v = 0; v < sum.size(); ++v) sum[v].add_(results[i].gradients[v]);
    }
    constexpr int kWarmup = 4;
    const double progress = (step - 0.5) / config_.steps;
    const double rate = std::min(1.0, static_cast<double>(step) / kWarmup) * 0.5 *
                        (1 + std::cos(std::numbers::pi * progress));
    attention_norm_.step(sum[0].cpu(), rate * config_.norm_rate);
    mlp_norm_.step(sum[1].cpu(), rate * config_.norm_rate);
    size_t v = 2;
    const TuneRates rates = {rate * config_.code_rate, rate * config_.scale_rate};
    for (auto& [suffix, latent] : latents_) {
      const at::Tensor gradient = sum[v++].cpu().contiguous();
      latent.step(gradient.const_data_ptr<float>(), rates, threads_);
    }
  }

  const ModelSpec& spec_;
  const Rope& rope_;
  const std::vector<at::Tensor>& inputs_;
  const std::vector<at::Tensor>& targets_;
  const TuneConfig& config_;
  const int threads_;
  const c10::Device device_;
  LatentNorm attention_norm_, mlp_norm_;
  std::map<std::string, LatentLinear> latents_;
  std::vector<Window> windows_, held_out_;
  size_t next_ = 0;
  std::mt19937_64 random_;
};

}  // namespace

TuneReport tune_block(const ModelSpec& spec, const Rope& rope, const std::vector<at::Tensor>& inputs,
                      const std::vector<at::Tensor>& targets, const TuneConfig& config,
                      at::ScalarType norm_dtype, int threads, Block* block,
                      std::map<std::string, TunedLinear>* linears) {
  const auto start = std::chrono::steady_clock::now();
  BlockTuner tuner(spec, rope, inputs, targets, config, norm_dtype, threads, *block, *linears);
  TuneReport report = tuner.run(block, linears);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace billm
