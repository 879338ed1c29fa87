// Linears with an fp32 weight: what is not run packed.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "billm/base/worker_team.h"
#include "billm/model/linear_operator.h"

namespace billm {

// With a team the product is cut into pieces whose sizes depend on the shapes alone, each by one
// thread, so it is the same for any number of threads. Without one it is ATen's, and autograd
// passes through it to the weight.
class DenseLinear : public LinearOperator {
 public:
  // weight [out, in] fp32. `team` must outlive this; null: one product by ATen.
  explicit DenseLinear(at::Tensor weight, WorkerTeam* team = nullptr)
      : weight_(std::move(weight)), team_(team) {}

  at::Tensor apply(const at::Tensor& x) const override;
  at::Tensor apply_with_bias(const at::Tensor& x, const at::Tensor& bias) const override;
  const at::Tensor& weight() const { return weight_; }
  int64_t bytes() const override { return static_cast<int64_t>(weight_.nbytes()); }

 private:
  const at::Tensor weight_;
  WorkerTeam* const team_;
};

}  // namespace billm
