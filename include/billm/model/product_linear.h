// A linear that is a product of factors, W = F0 F1 ... Fk, each run by its own operator.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "billm/model/linear_operator.h"

namespace billm {

class ProductLinear : public LinearOperator {
 public:
  // Outermost first, at least one.
  explicit ProductLinear(std::vector<std::unique_ptr<LinearOperator>> parts)
      : parts_(std::move(parts)) {}

  at::Tensor apply(const at::Tensor& x) const override {
    at::Tensor y = x;
    for (auto part = parts_.rbegin(); part != parts_.rend(); ++part) y = (*part)->apply(y);
    return y;
  }
  int64_t bytes() const override {
    int64_t sum = 0;
    for (const auto& part : parts_) sum += part->bytes();
    return sum;
  }

 private:
  const std::vector<std::unique_ptr<LinearOperator>> parts_;
};

}  // namespace billm
