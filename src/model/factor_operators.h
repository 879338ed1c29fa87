// What runs each kind of factor from its packed bytes: a row for each alternative of PackedFactor.
#pragma once

#include <memory>
#include <span>

#include "billm/model/linear_operator.h"

namespace billm {

struct FactorOperator {
  const char* kind;  // as factor_kind_names()
  // y = F x on the runner's device.
  std::unique_ptr<LinearOperator> (*make)(LinearRunner& runner, const PackedFactor& factor);
  // Why the CUDA kernels do not run it; null: they do. What users get of a layer with several
  // factors is kNoCudaProducts.
  const char* without_cuda;
};
std::span<const FactorOperator> factor_operators();

// Until the CUDA kernels have products.
inline constexpr const char* kNoCudaProducts =
    "a product of factors, which the CUDA kernels do not run yet";

}  // namespace billm
