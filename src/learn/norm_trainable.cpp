// See norm_trainable.h.
#include "norm_trainable.h"

#include <ATen/core/grad_mode.h>

namespace billm {

NormTrainable::NormTrainable(const at::Tensor& weight, at::ScalarType dtype, double rate)
    : dtype_(dtype),
      rate_(rate),
      unit_(weight.abs().mean().item<double>()),
      start_(weight.detach().clone()),
      move_(start_.mul(0)),
      weight_(start_) {}

std::vector<Parameter> NormTrainable::parameters() {
  if (rate_ <= 0) return {};
  return {{"weight", move_, rate_}};
}

at::Tensor NormTrainable::weight(int) const { return weight_.clone(); }

std::vector<at::Tensor> NormTrainable::gradients(const at::Tensor&, const at::Tensor& gradient,
                                                 int) const {
  if (rate_ <= 0) return {};
  return {gradient};
}

void NormTrainable::refresh(int) {
  const at::NoGradGuard no_grad;
  weight_ = start_.add(move_, unit_).to(dtype_).to(at::kFloat);
}

NamedTensors NormTrainable::state() const {
  if (rate_ <= 0) return {};
  return {{"weight", weight_}};
}

void NormTrainable::restore(const NamedTensors& state) {
  if (!state.empty()) weight_ = state.front().second.to(weight_.device());
}

}  // namespace billm
