// A factor on a trellis, run from its planes on the CPU: y = W x.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "billm/base/worker_team.h"
#include "billm/model/linear_operator.h"
#include "billm/pack/packed_trellis.h"
#include "kernels/cpu/trellis_gemv.h"

namespace billm {

// What the trellis layers of a runner share: threads, the format's table, room for inputs.
struct TrellisRoom {
  explicit TrellisRoom(WorkerTeam& threads);
  WorkerTeam& team;
  const kernels::TrellisTable table;
  std::vector<kernels::TrellisInput> inputs;
  std::vector<std::vector<float>> decoded;  // by worker: tiles of a layer
};

class TrellisLinear : public LinearOperator {
 public:
  // `room` must outlive it; the planes need not.
  TrellisLinear(TrellisRoom& room, const PackedTrellis& packed);
  at::Tensor apply(const at::Tensor& x) const override;
  int64_t bytes() const override { return tiles_.bytes(); }

 private:
  // x [tokens, cols] -> y [tokens, rows].
  void multiply(const float* x, int64_t tokens, float* y) const;
  void multiply_decoded(const float* x, int64_t tokens, float* y) const;

  TrellisRoom& room_;
  const kernels::TrellisTiles tiles_;
};

}  // namespace billm
