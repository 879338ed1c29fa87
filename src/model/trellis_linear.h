// A factor on a trellis, run on the CPU: y = W x.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "billm/base/worker_team.h"
#include "billm/model/linear_operator.h"
#include "billm/pack/packed_trellis.h"

namespace billm {

// The planes are copied; segments of rows are decoded to fp32, multiplied and forgotten.
class TrellisLinear : public LinearOperator {
 public:
  TrellisLinear(WorkerTeam& team, const PackedTrellis& packed);
  at::Tensor apply(const at::Tensor& x) const override;
  int64_t bytes() const override;

 private:
  WorkerTeam& team_;
  PackedTrellis packed_;
  mutable std::vector<std::vector<float>> decoded_;  // by worker
};

}  // namespace billm
