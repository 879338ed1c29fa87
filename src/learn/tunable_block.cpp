// See tunable_block.h.
#include "tunable_block.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "billm/base/error.h"

namespace billm {

LatentNorm::LatentNorm(const at::Tensor& weight, at::ScalarType dtype)
    : dtype_(dtype),
      latent_(weight.cpu().clone()),
      mean_(latent_.mul(0)),
      square_(latent_.mul(0)),
      unit_(latent_.abs().mean().item<double>()) {}

at::Tensor LatentNorm::weight() const {
  return latent_.to(dtype_).to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
}

void LatentNorm::step(const at::Tensor& gradient, double rate) {
  constexpr double kBeta1 = 0.9, kBeta2 = 0.99;
  ++steps_;
  const at::Tensor g = gradient.cpu();
  mean_.mul_(kBeta1).add_(g, 1 - kBeta1);
  square_.mul_(kBeta2).add_(g.square(), 1 - kBeta2);
  const at::Tensor divisor = square_.div(1 - std::pow(kBeta2, steps_)).sqrt_().add_(1e-30);
  const at::Tensor move = mean_.div(divisor).masked_fill_(square_.eq(0), 0);  // underflow
  latent_.sub_(move.mul(rate * unit_ / (1 - std::pow(kBeta1, steps_))));
}

TunableBlock::TunableBlock(const Block& block, const std::map<std::string, TunedLinear>& linears,
                           const NormTypes& types, double margin)
    : fixed_(block) {
  fixed_.norms.clear();
  fixed_.linears.clear();
  for (const auto& [suffix, weight] : block.norms) {
    norms_.try_emplace(suffix, weight, types.at(suffix));
  }
  for (const auto& [suffix, linear] : linears) {
    latents_.try_emplace(suffix, linear.codes, linear.original.const_data_ptr<float>(), margin);
  }
}

Block TunableBlock::leaves(c10::Device device, bool gradients) {
  Block block = fixed_;
  for (const auto& [suffix, norm] : norms_) {
    block.norms[suffix] = norm.weight().to(device).set_requires_grad(gradients);
  }
  for (auto& [suffix, latent] : latents_) {
    block.set_weight(suffix,
                     at::from_blob(latent.weight(), {latent.rows(), latent.cols()}, at::kFloat)
                         .to(device)
                         .set_requires_grad(gradients));
  }
  return block;
}

std::vector<at::Tensor> TunableBlock::variables(const Block& leaves) {
  std::vector<at::Tensor> variables;
  for (const auto& [suffix, weight] : leaves.norms) variables.push_back(weight);
  for (const auto& [suffix, linear] : leaves.linears) variables.push_back(leaves.weight(suffix));
  return variables;
}

void TunableBlock::step(const std::vector<at::Tensor>& gradients, const StepRates& rates,
                        int threads) {
  size_t v = 0;
  for (auto& [suffix, norm] : norms_) norm.step(gradients[v++], rates.norm);
  for (auto& [suffix, latent] : latents_) {
    const at::Tensor gradient = gradients[v++].cpu().contiguous();
    latent.step(gradient.const_data_ptr<float>(), rates.linear, threads);
  }
}

void TunableBlock::store(c10::Device device, Block* block,
                         std::map<std::string, TunedLinear>* linears, bool decoded) {
  Block present = leaves(device, false);
  block->norms = present.norms;
  for (const auto& [suffix, linear] : present.linears) {
    if (decoded) block->set_weight(suffix, present.weight(suffix).clone());
  }
  for (auto& [suffix, linear] : *linears) linear.codes = latents_.at(suffix).codes();
}

double rate_at(int step, int steps) {
  constexpr int kWarmup = 4;
  const double progress = (step - 0.5) / steps;
  return std::min(1.0, static_cast<double>(step) / kWarmup) * 0.5 *
         (1 + std::cos(std::numbers::pi * progress));
}

TuneReport learn(int steps, const std::function<void(int step)>& train,
                 const std::function<double()>& held_out, const std::function<void()>& keep) {
  TuneReport report;
  report.loss_before = report.loss_after = held_out();
  for (int step = 1; step <= steps; ++step) {
    train(step);
    if (step * kTuneChecks / steps == (step - 1) * kTuneChecks / steps) continue;
    const double loss = held_out();
    if (!(loss < report.loss_after)) continue;
    report.loss_after = loss;
    report.best_step = step;
    keep();
  }
  return report;
}

double mean_loss(const std::vector<double>& losses, const std::vector<int64_t>& tokens,
                 const std::string& flag) {
  double sum = 0, weight = 0;
  for (size_t i = 0; i < losses.size(); ++i) {
    sum += static_cast<double>(tokens[i]) * losses[i];
    weight += static_cast<double>(tokens[i]);
  }
  if (!std::isfinite(sum)) {
    throw Error(ErrorCode::kFailure, flag + ": the held-out loss is not finite",
                "lower its rates, or leave it out");
  }
  return sum / weight;
}

void add_to_first(std::vector<std::vector<at::Tensor>>* gradients) {
  std::vector<at::Tensor>& sum = gradients->front();
  for (size_t i = 1; i < gradients->size(); ++i) {
    for (size_t v = 0; v < sum.size(); ++v) sum[v].add_((*gradients)[i][v]);
  }
}

Order::Order(size_t count, uint64_t seed) : order_(count), random_(seed) {
  for (size_t i = 0; i < count; ++i) order_[i] = i;
}

std::vector<size_t> Order::next(size_t count) {
  std::vector<size_t> chosen;
  count = std::min(count, order_.size());
  while (chosen.size() < count) {
    if (next_ == 0) {
      for (size_t i = order_.size() - 1; i > 0; --i) {  // std::shuffle differs by library
        std::swap(order_[i], order_[random_() % (i + 1)]);
      }
    }
    chosen.push_back(order_[next_]);
    next_ = (next_ + 1) % order_.size();
  }
  return chosen;
}

}  // namespace billm
