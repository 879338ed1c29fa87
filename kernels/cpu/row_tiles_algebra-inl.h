// Feedback to later columns, and products and solutions with the triangular factor of a group.
// Compiled once per Highway target (hence the odd include guard).
#if defined(BILLM_ROW_TILES_ALGEBRA_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BILLM_ROW_TILES_ALGEBRA_INL_H_
#undef BILLM_ROW_TILES_ALGEBRA_INL_H_
#else
#define BILLM_ROW_TILES_ALGEBRA_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/cpu/row_tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace billm::kernels {
namespace HWY_NAMESPACE {

// out[c..c+3] for two vectors of lanes at a time: eight accumulators.
void AccumulateFeedback(const float* d, int64_t count, const float* factor, int64_t stride,
                        int64_t width, float* out) {
  if (count == 0) return;  // d may be null
  const D tag;
  const int n = static_cast<int>(hn::Lanes(tag));
  int64_t c = 0;
  for (; c + 4 <= width; c += 4) {
    for (int lane = 0; lane < kT; lane += 2 * n) {
      float* o = out + c * kT + lane;
      V a00 = hn::Load(tag, o), a01 = hn::Load(tag, o + n);
      V a10 = hn::Load(tag, o + kT), a11 = hn::Load(tag, o + kT + n);
      V a20 = hn::Load(tag, o + 2 * kT), a21 = hn::Load(tag, o + 2 * kT + n);
      V a30 = hn::Load(tag, o + 3 * kT), a31 = hn::Load(tag, o + 3 * kT + n);
      const float* r = factor + c;
      const float* x = d + lane;
      for (int64_t i = 0; i < count; ++i, r += stride, x += kT) {
        const V x0 = hn::Load(tag, x), x1 = hn::Load(tag, x + n);
        const V r0 = hn::Set(tag, r[0]), r1 = hn::Set(tag, r[1]);
        const V r2 = hn::Set(tag, r[2]), r3 = hn::Set(tag, r[3]);
        a00 = hn::Add(a00, hn::Mul(x0, r0));
        a01 = hn::Add(a01, hn::Mul(x1, r0));
        a10 = hn::Add(a10, hn::Mul(x0, r1));
        a11 = hn::Add(a11, hn::Mul(x1, r1));
        a20 = hn::Add(a20, hn::Mul(x0, r2));
        a21 = hn::Add(a21, hn::Mul(x1, r2));
        a30 = hn::Add(a30, hn::Mul(x0, r3));
        a31 = hn::Add(a31, hn::Mul(x1, r3));
      }
      hn::Store(a00, tag, o);
      hn::Store(a01, tag, o + n);
      hn::Store(a10, tag, o + kT);
      hn::Store(a11, tag, o + kT + n);
      hn::Store(a20, tag, o + 2 * kT);
      hn::Store(a21, tag, o + 2 * kT + n);
      hn::Store(a30, tag, o + 3 * kT);
      hn::Store(a31, tag, o + 3 * kT + n);
    }
  }
  for (; c < width; ++c) {
    for (int lane = 0; lane < kT; lane += n) {
      V sum = hn::Load(tag, out + c * kT + lane);
      for (int64_t i = 0; i < count; ++i) {
        sum = hn::Add(
            sum, hn::Mul(hn::Load(tag, d + i * kT + lane), hn::Set(tag, factor[i * stride + c])));
      }
      hn::Store(sum, tag, out + c * kT + lane);
    }
  }
}

void SolveFactor(const GroupFactor& factor, const float* y, float* x) {
  const D tag;
  const int n = static_cast<int>(hn::Lanes(tag));
  for (int c = 0; c < factor.width; ++c) {
    const float* column = factor.columns + static_cast<int64_t>(c) * factor.width;
    const V inverse = hn::Set(tag, 1.0f / column[c]);
    for (int lane = 0; lane < kT; lane += 2 * n) {
      const Pair sum = DotColumn(tag, x, column, c, lane);
      const float* from = y + c * kT + lane;
      float* to = x + c * kT + lane;
      const V low = hn::Mul(hn::Sub(hn::Load(tag, from), sum.low), inverse);
      const V high = hn::Mul(hn::Sub(hn::Load(tag, from + n), sum.high), inverse);
      hn::Store(low, tag, to);
      hn::Store(high, tag, to + n);
    }
  }
}

void MultiplyFactor(const GroupFactor& factor, const float* x, float* y) {
  const D tag;
  const int n = static_cast<int>(hn::Lanes(tag));
  for (int c = 0; c < factor.width; ++c) {
    const float* column = factor.columns + static_cast<int64_t>(c) * factor.width;
    for (int lane = 0; lane < kT; lane += 2 * n) {
      const Pair sum = DotColumn(tag, x, column, c + 1, lane);
      hn::Store(sum.low, tag, y + c * kT + lane);
      hn::Store(sum.high, tag, y + c * kT + lane + n);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace billm::kernels
HWY_AFTER_NAMESPACE();

#endif
