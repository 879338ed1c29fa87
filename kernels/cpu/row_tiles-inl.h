// What the tile kernels share, compiled once per Highway target (hence the odd include guard).
#if defined(BILLM_ROW_TILES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BILLM_ROW_TILES_INL_H_
#undef BILLM_ROW_TILES_INL_H_
#else
#define BILLM_ROW_TILES_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/cpu/row_tiles.h"

HWY_BEFORE_NAMESPACE();
namespace billm::kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;
constexpr int kT = kTileRows;

// sum_{i < count} x[i][lanes] * column[i] for two vectors of lanes: two independent chains of
// additions, since one alone waits for its own latency.
struct Pair {
  V low, high;
};
HWY_INLINE Pair DotColumn(D tag, const float* x, const float* column, int count, int lane) {
  const int n = static_cast<int>(hn::Lanes(tag));
  Pair sum = {hn::Zero(tag), hn::Zero(tag)};
  const float* from = x + lane;
  for (int i = 0; i < count; ++i, from += kT) {
    const V factor = hn::Set(tag, column[i]);
    sum.low = hn::Add(sum.low, hn::Mul(hn::Load(tag, from), factor));
    sum.high = hn::Add(sum.high, hn::Mul(hn::Load(tag, from + n), factor));
  }
  return sum;
}

// The code nearest to t (ties to even), and the value of a code.
HWY_INLINE V NearestCode(D tag, const IntegerGrid& grid, int lane, V t) {
  const V place =
      hn::Add(hn::Mul(t, hn::Load(tag, grid.inverse + lane)), hn::Load(tag, grid.zero + lane));
  // Clamped first: rounding goes through integers on some targets.
  return hn::Round(hn::Min(hn::Max(place, hn::Zero(tag)), hn::Set(tag, grid.last)));
}
HWY_INLINE V CodeValue(D tag, const IntegerGrid& grid, int lane, V code) {
  return hn::Mul(hn::Sub(code, hn::Load(tag, grid.zero + lane)), hn::Load(tag, grid.step + lane));
}

}  // namespace HWY_NAMESPACE
}  // namespace billm::kernels
HWY_AFTER_NAMESPACE();

#endif
