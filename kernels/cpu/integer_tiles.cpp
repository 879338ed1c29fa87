// Highway implementation of integer_tiles.h; the rules of row_tiles.cpp hold.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/integer_tiles.cpp"
#include "hwy/foreach_target.h"  // must come before highway.h
// clang-format off
#include "hwy/highway.h"
// clang-format on

#include "kernels/cpu/integer_tiles.h"
#include "kernels/cpu/row_tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace billm::kernels {
namespace HWY_NAMESPACE {

void GridError(const IntegerGrid& grid, const float* w, const float* h, int64_t width,
               float* error) {
  const D tag;
  const int n = static_cast<int>(hn::Lanes(tag));
  for (int lane = 0; lane < kT; lane += n) {
    V sum = hn::Zero(tag);
    for (int64_t c = 0; c < width; ++c) {
      const V weight = hn::Load(tag, w + c * kT + lane);
      const V code = NearestCode(tag, grid, lane, weight);
      const V d = hn::Sub(weight, CodeValue(tag, grid, lane, code));
      sum = hn::Add(sum, hn::Mul(hn::Mul(d, d), hn::Set(tag, h[c])));
    }
    hn::Store(sum, tag, error + lane);
  }
}

void CodeIntegers(const GroupFactor& factor, const IntegerGrid* const* grids, const float* w,
                  float* code, float* delta) {
  const D tag;
  const int n = static_cast<int>(hn::Lanes(tag));
  for (int c = 0; c < factor.width; ++c) {
    const float* column = factor.columns + static_cast<int64_t>(c) * factor.width;
    const V inverse = hn::Set(tag, 1.0f / column[c]);
    for (int lane = 0; lane < kT; lane += 2 * n) {
      const Pair carried = DotColumn(tag, delta, column, c, lane);
      for (int half = 0; half < 2; ++half) {
        const int l = lane + half * n;
        const int64_t at = static_cast<int64_t>(c) * kT + l;
        const V weight = hn::Load(tag, w + at);
        const V sum = half == 0 ? carried.low : carried.high;
        const V nearest = NearestCode(tag, *grids[c], l, hn::Add(weight, hn::Mul(sum, inverse)));
        hn::Store(nearest, tag, code + at);
        hn::Store(hn::Sub(weight, CodeValue(tag, *grids[c], l, nearest)), tag, delta + at);
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace billm::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace billm::kernels {

HWY_EXPORT(GridError);
HWY_EXPORT(CodeIntegers);

void grid_error(const IntegerGrid& grid, const float* w, const float* h, int64_t width,
                float* error) {
  HWY_DYNAMIC_DISPATCH(GridError)(grid, w, h, width, error);
}
void code_integers(const GroupFactor& factor, const IntegerGrid* const* grids, const float* w,
                   float* code, float* delta) {
  HWY_DYNAMIC_DISPATCH(CodeIntegers)(factor, grids, w, code, delta);
}

}  // namespace billm::kernels
#endif
