// The input of a product: x in the kernel layout's order, its tables, their scale and the sum of x.
//
// Tables of octet o: [o / interleave][half][o % interleave][16] bytes, half 0 for columns 0..3 of
// the octet, and every entry is its rounded sum plus 127.
//
// Compiled once per Highway target (hence the odd include guard).
#if defined(BILLM_GEMV_INPUT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BILLM_GEMV_INPUT_INL_H_
#undef BILLM_GEMV_INPUT_INL_H_
#else
#define BILLM_GEMV_INPUT_INL_H_
#endif

#include <algorithm>
#include <cmath>

#include "hwy/highway.h"
#include "kernels/cpu/gemv_levels-inl.h"

HWY_BEFORE_NAMESPACE();
namespace billm::kernels {
namespace HWY_NAMESPACE {

// Entry v of the table of x_0..x_3 is the sum of x_i where bit i of v is 1, else -x_i.
alignas(64) constexpr float kSigns[4][16] = {
    {-1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1},
    {-1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1},
    {-1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1},
    {-1, -1, -1, -1, -1, -1, -1, -1, 1, 1, 1, 1, 1, 1, 1, 1}};

void MakeTable(const float* x, float inverse, uint8_t* table) {
  const D d;
  const DI di;
  const hn::Rebind<uint8_t, DI> d8;
  const int n = static_cast<int>(hn::Lanes(d));
  const V x0 = hn::Set(d, x[0] * inverse), x1 = hn::Set(d, x[1] * inverse);
  const V x2 = hn::Set(d, x[2] * inverse), x3 = hn::Set(d, x[3] * inverse);
  for (int v = 0; v < 16; v += n) {
    const V low =
        hn::MulAdd(hn::Load(d, kSigns[1] + v), x1, hn::Mul(hn::Load(d, kSigns[0] + v), x0));
    const V high =
        hn::MulAdd(hn::Load(d, kSigns[3] + v), x3, hn::Mul(hn::Load(d, kSigns[2] + v), x2));
    const auto entry = hn::Add(hn::NearestInt(hn::Add(low, high)), hn::Set(di, kBias));
    hn::StoreU(hn::DemoteTo(d8, entry), d8, table + v);
  }
}

// x of a segment in run order.
void GatherSegment(const PlaneTilesView& view, const PlaneSegment& segment, const float* x,
                   float* out) {
  const D d;
  const DI di;
  const int n = static_cast<int>(hn::Lanes(d));
  const int32_t* source = view.source + 8 * int64_t{segment.first_octet};
  const int size = 8 * segment.octets;
  for (int i = 0; i < size; i += n) {
    if (size - i < n) {  // vectors of 16, segments of 8
      for (; i < size; ++i) {
        const int32_t column = source[i];
        const float scale = column < 0                     ? 0.0f
                            : view.column_scale == nullptr ? 1.0f
                                                           : view.column_scale[column];
        out[i] = column < 0 ? 0.0f : x[column] * scale;
      }
      return;
    }
    const auto index = hn::LoadU(di, source + i);
    const auto inside = hn::Max(index, hn::Zero(di));
    V value = hn::GatherIndex(d, x, inside);
    if (view.column_scale != nullptr) {
      value = hn::Mul(value, hn::GatherIndex(d, view.column_scale, inside));
    }
    hn::StoreU(hn::IfThenElseZero(hn::RebindMask(d, hn::Eq(index, inside)), value), d, out + i);
  }
}

// Input of a segment: x [cols] -> x in run order, tables, scale and sum.
void FillSegment(const PlaneTilesView& view, const float* x, int s, float* run, uint8_t* tables,
                 float* scale, float* sum) {
  const D d;
  const int n = static_cast<int>(hn::Lanes(d)), interleave = view.order.interleave;
  const PlaneSegment& segment = view.segments[s];
  float* from = run + 8 * int64_t{segment.first_octet};
  GatherSegment(view, segment, x, from);
  const int size = 8 * segment.octets;
  V total = hn::Zero(d);
  float largest = 0;
  alignas(64) float magnitude[16] = {};
  for (int i = 0; i < size; i += n) {
    V value;
    if (size - i < n) {  // vectors of 16, segments of 8
      alignas(64) float rest[16] = {};
      std::copy_n(from + i, size - i, rest);
      value = hn::Load(d, rest);
    } else {
      value = hn::LoadU(d, from + i);
    }
    total = hn::Add(total, value);
#if HWY_TARGET == HWY_SCALAR
    const float* four = from + i / 4 * 4;
    const V sums = hn::Set(
        d, (std::fabs(four[0]) + std::fabs(four[1])) + (std::fabs(four[2]) + std::fabs(four[3])));
#else
    // |x_0| + ... + |x_3| in every lane of a group of four.
    V sums = hn::Abs(value);
    sums = hn::Add(sums, hn::Shuffle2301(sums));
    sums = hn::Add(sums, hn::Shuffle1032(sums));
#endif
    hn::Store(hn::Max(sums, hn::Load(d, magnitude)), d, magnitude);
  }
  for (const float value : magnitude) largest = std::max(largest, value);
  const float inverse = largest > 0 ? static_cast<float>(kBias) / largest : 0.0f;
  scale[s] = largest * (1.0f / static_cast<float>(kBias));
  sum[s] = hn::GetLane(hn::SumOfLanes(d, total));
  // Tables cannot say NaN or infinity, so the scale does: the products are then NaN.
  if (!std::isfinite(sum[s]) || !std::isfinite(largest)) scale[s] = NAN;
  for (int i = 0; i < segment.octets; ++i) {
    const int octet = segment.first_octet + i;
    uint8_t* low =
        tables + 32 * int64_t{octet / interleave * interleave} + 16 * (octet % interleave);
    MakeTable(from + 8 * i, inverse, low);
    MakeTable(from + 8 * i + 4, inverse, low + 16 * interleave);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace billm::kernels
HWY_AFTER_NAMESPACE();

#endif
