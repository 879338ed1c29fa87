// What the kernels of a group share: their task, and a segment's part of the result.
// Compiled once per Highway target (hence the odd include guard).
#if defined(BILLM_GEMV_SEGMENT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BILLM_GEMV_SEGMENT_INL_H_
#undef BILLM_GEMV_SEGMENT_INL_H_
#else
#define BILLM_GEMV_SEGMENT_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/cpu/gemv_levels-inl.h"

#if HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
HWY_BEFORE_NAMESPACE();
namespace billm::kernels {
namespace HWY_NAMESPACE {

// What the kernels of a group need.
struct Task {
  const PlaneTilesView& view;
  const PlaneGroup& group;
  const GemvInput* inputs;
  int64_t tile;
  float* y;  // [tokens][kMostRows], of the tile
};

// y[t][row ...] += scale/2 * sum_p c_p sums[p][t] + constant * (sum of x).
template <int kPlanes, int kTokens>
HWY_INLINE void AddSegment(D d, const Task& task, int s, int row, const V (*sums)[kTokens]) {
  const PlaneTilesView& view = task.view;
  V c[kPlanes];
  Coefficients<kPlanes>(d, view, view.segments[s], task.tile, row, c);
  for (int t = 0; t < kTokens; ++t) {
    V sum = hn::Mul(c[0], sums[0][t]);
    for (int p = 1; p < kPlanes; ++p) sum = hn::MulAdd(c[p], sums[p][t], sum);
    float* y = task.y + t * kMostRows + row;
    V result =
        hn::MulAdd(sum, hn::Set(d, 0.5f * view.base * task.inputs[t].scale()[s]), hn::Load(d, y));
    if (view.constants != nullptr) {
      const float* constant =
          view.constants + (task.tile * view.segment_count + s) * view.order.tile_rows + row;
      result = hn::MulAdd(hn::LoadU(d, constant), hn::Set(d, task.inputs[t].sum()[s]), result);
    }
    hn::Store(result, d, y);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace billm::kernels
HWY_AFTER_NAMESPACE();
#endif

#endif
