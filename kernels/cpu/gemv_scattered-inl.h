// Scattered integers (kernels/plane_tiles.h) in products and in decoded tiles.
// Compiled once per Highway target (hence the odd include guard).
#if defined(BILLM_GEMV_SCATTERED_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BILLM_GEMV_SCATTERED_INL_H_
#undef BILLM_GEMV_SCATTERED_INL_H_
#else
#define BILLM_GEMV_SCATTERED_INL_H_
#endif

#include <algorithm>

#include "hwy/highway.h"
#include "kernels/cpu/gemv_levels-inl.h"

#if HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
HWY_BEFORE_NAMESPACE();
namespace billm::kernels {
namespace HWY_NAMESPACE {

// y[t][i] += the scattered integers of row first_row + i.
void AddScattered(const PlaneTilesView& view, const GemvInput* inputs, int tokens,
                  int64_t first_row, int64_t rows, float* y) {
  const D d;
  const DI di;
  const hn::Rebind<uint8_t, DI> d8;
  const int n = static_cast<int>(hn::Lanes(d));
  const ScatteredView& scattered = view.scattered;
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t row = first_row + i;
    const V step = hn::Set(d, scattered.step[row]);
    V sum[kMaxGemvTokens];
    for (V& of_token : sum) of_token = hn::Zero(d);
    uint32_t entry = scattered.start[row];
    for (int s = 0; s < view.segment_count; ++s) {
      const int64_t at = row * view.segment_count + s;
      const int count = scattered.count[at];
      const V shift = hn::Set(d, scattered.shift[at]);
      const int64_t from = 8 * int64_t{view.segments[s].first_octet};
      for (int e = 0; e < count;
           e += n, entry += static_cast<uint32_t>(std::min(n, count - e + n))) {
        const auto column = hn::PromoteTo(di, hn::LoadU(d8, scattered.column + entry));
        const auto code = hn::PromoteTo(di, hn::LoadU(d8, scattered.code + entry));
        V value = hn::MulAdd(hn::ConvertTo(d, code), step, shift);
        if (count - e < n) {
          value = hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(count - e)), value);
        }
        for (int t = 0; t < tokens; ++t) {
          sum[t] = hn::MulAdd(value, hn::GatherIndex(d, inputs[t].x() + from, column), sum[t]);
        }
      }
    }
    for (int t = 0; t < tokens; ++t) {
      y[t * kMostRows + i] += hn::GetLane(hn::SumOfLanes(d, sum[t]));
    }
  }
}

// out[column * stride + i] += the scattered integers of row i of the tile.
inline void DecodeScattered(const PlaneTilesView& view, int64_t tile, float* out, int64_t stride) {
  const int tile_rows = view.order.tile_rows;
  for (int i = 0; i < tile_rows && tile * tile_rows + i < view.rows; ++i) {
    const int64_t row = tile * tile_rows + i;
    uint32_t entry = view.scattered.start[row];
    for (int s = 0; s < view.segment_count; ++s) {
      const int64_t at = row * view.segment_count + s;
      for (const uint32_t end = entry + view.scattered.count[at]; entry < end; ++entry) {
        const int32_t column =
            view.source[8 * int64_t{view.segments[s].first_octet} + view.scattered.column[entry]];
        const float scale = view.column_scale == nullptr ? 1.0f : view.column_scale[column];
        out[column * stride + i] +=
            scale * (static_cast<float>(view.scattered.code[entry]) * view.scattered.step[row] +
                     view.scattered.shift[at]);
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace billm::kernels
HWY_AFTER_NAMESPACE();
#endif

#endif
