// The error that every report of billm means: tr(D H D') / tr(W H W').
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include "billm/quantize/hessian.h"

namespace billm {

// H, undamped, [cols, cols] on the device; on the CPU without a copy.
at::Tensor hessian_matrix(const Hessian& hessian, c10::Device device);

// weight, decoded: fp32 [rows, cols]; D = weight - decoded; h: hessian_matrix(), on whose device it
// is computed. 0 if W H W' is 0. `threads`: of the CPU.
double layer_error(const at::Tensor& weight, const at::Tensor& decoded, const at::Tensor& h,
                   int threads);

}  // namespace billm
