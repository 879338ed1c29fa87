// The error that every report of billm means: tr(D H D') / tr(W H W').
#pragma once

#include <ATen/core/Tensor.h>

#include "billm/quantize/hessian.h"

namespace billm {

// weight, decoded: fp32 [rows, cols] on the CPU; D = weight - decoded; H undamped. 0 if W H W' is
// 0.
double layer_error(const at::Tensor& weight, const at::Tensor& decoded, const Hessian& hessian,
                   int threads);

}  // namespace billm
