// Rotary embeddings: see include/billm/model/block.h. Sources: transformers 5.23,
// modeling_rope_utils.py (_compute_*_parameters). All in fp32 and in the order of operations there:
// at position 2000 fp64 differs by 1e-4.
#include <ATen/ops/arange.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <numbers>

#include "billm/model/block.h"
#include "rope_scaling.h"

namespace billm {
namespace {

at::Tensor exponents(const ModelConfig& config) {
  return at::arange(0, config.head_dim, 2, at::kFloat).div(static_cast<double>(config.head_dim));
}

at::Tensor none(const ModelConfig&, int64_t, const at::Tensor& base) { return base; }

// Chen et al., arXiv 2306.15595: positions divided by a factor.
at::Tensor linear(const ModelConfig& config, int64_t, const at::Tensor& base) {
  return base.div(config.rope_scaling.factor);
}

// "NTK-aware": beyond the positions of the pretraining the base grows with the sequence's length.
at::Tensor dynamic(const ModelConfig& config, int64_t length, const at::Tensor& base) {
  if (length <= config.max_position_embeddings) return base;
  const double factor = config.rope_scaling.factor;
  const auto width = static_cast<double>(config.head_dim);
  const at::Tensor stretch = at::scalar_tensor(factor * static_cast<double>(length), at::kFloat)
                                 .div(static_cast<double>(config.max_position_embeddings))
                                 .sub(factor - 1);
  const at::Tensor theta = stretch.pow(width / (width - 2)).mul(config.rope_theta);
  return at::pow(theta, exponents(config)).reciprocal();
}

// LLaMA 3.1: long waves are divided by a factor, short ones left, those between interpolated.
at::Tensor llama3(const ModelConfig& config, int64_t, const at::Tensor& base) {
  const RopeScaling& scaling = config.rope_scaling;
  const double low = scaling.low_frequency, high = scaling.high_frequency;
  const auto positions = static_cast<double>(scaling.original_positions);
  const at::Tensor wave = base.reciprocal().mul(2 * std::numbers::pi);
  const at::Tensor divided = at::where(wave.gt(positions / low), base.div(scaling.factor), base);
  const at::Tensor smooth = wave.reciprocal().mul(positions).sub(low).div(high - low);
  const at::Tensor between =
      smooth.neg().add(1).mul(divided).div(scaling.factor).add(smooth.mul(divided));
  const at::Tensor is_between = wave.ge(positions / high).logical_and(wave.le(positions / low));
  return at::where(is_between, between, divided);
}

constexpr RopeScalingRow kRows[] = {
    {"", none}, {"linear", linear}, {"dynamic", dynamic}, {"llama3", llama3}};

}  // namespace

const RopeScalingRow* find_rope_scaling(const std::string& type) {
  const auto found = std::find_if(std::begin(kRows), std::end(kRows),
                                  [&](const RopeScalingRow& row) { return row.type == type; });
  return found == std::end(kRows) ? nullptr : &*found;
}

std::string rope_scaling_names() {
  std::string names = "default";
  for (const RopeScalingRow& row : kRows) names += row.type[0] ? std::string(", ") + row.type : "";
  return names;
}

Rope make_rope(const ModelSpec& spec, int64_t length, c10::Device device) {
  if (spec.family->position != PositionKind::kRotary) return {};
  const ModelConfig& config = spec.config;
  const at::Tensor base = at::pow(config.rope_theta, exponents(config)).reciprocal();
  const at::Tensor frequency =
      find_rope_scaling(config.rope_scaling.type)->frequencies(config, length, base);
  const at::Tensor angle =
      at::arange(0, length, at::kFloat).unsqueeze(1).mul(frequency.unsqueeze(0));
  return {angle.cos().to(device), angle.sin().to(device)};
}

}  // namespace billm
