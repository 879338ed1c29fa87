// See trellis_trainable.h.
#include "trellis_trainable.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace billm {
namespace {

constexpr double kLargestHalf = 65504;

at::Tensor copy_to(std::vector<float>& values, at::IntArrayRef shape, c10::Device device) {
  return at::from_blob(values.data(), shape, at::kFloat)
      .to(device, at::kFloat, /*non_blocking=*/false, /*copy=*/true);
}

// The weight that the codes would have with scales of 1.
std::vector<float> values_of(TrellisCodes codes, int threads) {
  std::fill(codes.scale.begin(), codes.scale.end(), 1.0f);
  return dequantize(codes, threads);
}

}  // namespace

TrellisTrainable::TrellisTrainable(const TrellisCodes& codes, const LearnRates& rates,
                                   c10::Device device, int threads)
    : start_(codes), rates_(rates), device_(device) {
  const at::NoGradGuard no_grad;
  const int64_t rows = start_.format.rows, cols = start_.format.cols;
  std::vector<float> values = values_of(start_, threads), scale = start_.scale;
  values_ = copy_to(values, {rows, cols}, device);
  scale_ = start_scale_ = copy_to(scale, {rows}, device);
  if (rates.scale > 0) log_scale_ = at::zeros({rows}, scale_.options());
}

std::vector<Parameter> TrellisTrainable::parameters() {
  if (!log_scale_.defined()) return {};
  return {{"scale", log_scale_, rates_.scale}};
}

at::Tensor TrellisTrainable::weight(int) const { return at::mul(values_, scale_.unsqueeze(1)); }

std::vector<at::Tensor> TrellisTrainable::gradients(const at::Tensor& weight,
                                                    const at::Tensor& gradient, int) const {
  if (!log_scale_.defined()) return {};
  return {at::mul(weight, gradient).sum(at::IntArrayRef{1})};  // d loss / d log of a scale
}

void TrellisTrainable::refresh(int) {
  const at::NoGradGuard no_grad;
  if (!log_scale_.defined()) return;
  scale_ = log_scale_.exp().mul_(start_scale_).clamp_max_(kLargestHalf);
  scale_ = scale_.to(at::kHalf).to(at::kFloat);
}

NamedTensors TrellisTrainable::state() const {
  if (!log_scale_.defined()) return {};
  return {{"scale", scale_}};
}

void TrellisTrainable::restore(const NamedTensors& state) {
  for (const auto& [name, tensor] : state) {
    if (name == "scale") scale_ = tensor.to(device_);
  }
}

TrellisCodes TrellisTrainable::codes() const {
  TrellisCodes codes = start_;
  const at::Tensor scale = scale_.cpu().contiguous();
  std::copy_n(scale.const_data_ptr<float>(), codes.scale.size(), codes.scale.begin());
  return codes;
}

}  // namespace billm
