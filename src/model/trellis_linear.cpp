// See trellis_linear.h.
#include "trellis_linear.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>

#include <algorithm>

#include "shared_pieces.h"

namespace billm {

TrellisLinear::TrellisLinear(WorkerTeam& team, const PackedTrellis& packed)
    : team_(team), decoded_(static_cast<size_t>(team.size())) {
  packed_.format = packed.format;
  for (const Plane& plane : packed.planes) {
    packed_.owned.emplace_back(plane.bytes.begin(), plane.bytes.end());
    packed_.planes.push_back({plane.name, plane.dtype, plane.shape, packed_.owned.back()});
  }
}

int64_t TrellisLinear::bytes() const {
  int64_t sum = 0;
  for (const auto& plane : packed_.owned) sum += static_cast<int64_t>(plane.size());
  return sum;
}

at::Tensor TrellisLinear::apply(const at::Tensor& x) const {
  const at::Tensor input = x.contiguous();
  const TrellisFormat& format = packed_.format;
  const int64_t tokens = input.size(0), step = format.segment_rows();
  at::Tensor result = at::empty({tokens, format.rows}, input.options());
  float* to = result.mutable_data_ptr<float>();
  float* from = const_cast<float*>(input.const_data_ptr<float>());
  // Pieces that depend on the shape alone, since sums of a product depend on how it is cut.
  share_pieces(team_, format.segments(), [&](int64_t segment, int worker) {
    const at::NoGradGuard no_grad;
    std::vector<float>& weight = decoded_[static_cast<size_t>(worker)];
    const int64_t first = segment * step, rows = std::min(step, format.rows - first);
    weight.resize(std::max(weight.size(), static_cast<size_t>(rows * format.cols)));
    decode_segment(packed_, segment, weight.data());
    const at::Tensor w = at::from_blob(weight.data(), {rows, format.cols}, at::kFloat);
    const at::Tensor in = at::from_blob(from, {tokens, format.cols}, at::kFloat);
    at::Tensor part = at::from_blob(to + first, {tokens, rows}, {format.rows, 1}, at::kFloat);
    at::mm_out(part, in, w.t());
  });
  return result;
}

}  // namespace billm
