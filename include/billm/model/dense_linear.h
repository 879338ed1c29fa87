// Linears with an fp32 weight, multiplied by the threads of a WorkerTeam: what is not run packed.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "billm/base/worker_team.h"
#include "billm/model/linear_operator.h"

namespace billm {

// The product is cut into pieces whose sizes depend on the shapes alone, each by one thread, so it
// is the same for any number of threads.
class DenseLinear : public LinearOperator {
 public:
  // weight [out, in] fp32. `team` must outlive this; null: one product by ATen (on a GPU).
  DenseLinear(at::Tensor weight, WorkerTeam* team) : weight_(std::move(weight)), team_(team) {}

  at::Tensor apply(const at::Tensor& x) const override;
  int64_t bytes() const override { return static_cast<int64_t>(weight_.nbytes()); }

 private:
  const at::Tensor weight_;
  WorkerTeam* const team_;
};

}  // namespace billm
