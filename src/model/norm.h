// The norms of a model's family.
#pragma once

#include <ATen/core/Tensor.h>

#include "billm/model/family.h"

namespace billm {

// Along the last dimension of x; weight and bias may be undefined.
at::Tensor norm(const ModelSpec& spec, const at::Tensor& x, const at::Tensor& weight,
                const at::Tensor& bias);

}  // namespace billm
