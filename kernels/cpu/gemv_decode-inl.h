// Decodes whole tiles to fp32, for products with many tokens.
// Compiled once per Highway target (hence the odd include guard).
#if defined(BILLM_GEMV_DECODE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BILLM_GEMV_DECODE_INL_H_
#undef BILLM_GEMV_DECODE_INL_H_
#else
#define BILLM_GEMV_DECODE_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/cpu/gemv_levels-inl.h"
#include "kernels/cpu/gemv_scattered-inl.h"

#if HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
HWY_BEFORE_NAMESPACE();
namespace billm::kernels {
namespace HWY_NAMESPACE {

// The low byte of each lane is the octet of a row from `row` on, `line` the octet's for row 0.
template <class DI_>
HWY_INLINE hn::Vec<DI_> LoadOctets(DI_ di, const TileOrder& order, const uint8_t* line, int row) {
#if HWY_TARGET <= HWY_AVX3_DL
  (void)order, (void)row;  // a line has four octets of each of 16 rows
  return hn::LoadU(di, reinterpret_cast<const int32_t*>(line));
#else
  const hn::Rebind<uint16_t, DI_> d16;  // two rows, the second of which is in the tile's upper half
  const int half = order.tile_rows / 2, upper = row >= half ? 1 : 0;
  const auto pairs = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(line) + (row - upper * half));
  const auto lanes = hn::PromoteTo(di, pairs);
  return upper != 0 ? hn::ShiftRight<8>(lanes) : lanes;
#endif
}

// The weights of one segment of a tile.
template <int kPlanes, int kStored = kPlanes>
void DecodeSegment(const PlaneTilesView& view, const PlaneGroup& group, int s, int64_t tile,
                   float* out, int64_t stride) {
  const D d;
  const DI di;
  const int n = static_cast<int>(hn::Lanes(d));
  const PlaneSegment& segment = view.segments[s];
  const uint8_t* bytes = view.planes + tile * view.tile_bytes;
  const int64_t line_bytes = view.order.line_bytes();
  for (int row = 0; row < view.order.tile_rows; row += n) {
    V c[kPlanes];
    Coefficients<kPlanes>(d, view, segment, tile, row, c);
    const V half = hn::Set(d, 0.5f * view.base);
    for (V& of_plane : c) of_plane = hn::Mul(of_plane, half);
    V constant = hn::Zero(d);
    if (view.constants != nullptr) {
      constant = hn::LoadU(
          d, view.constants + (tile * view.segment_count + s) * view.order.tile_rows + row);
    }
    for (int o = segment.first_octet; o < segment.first_octet + segment.octets; ++o) {
      // A whole line, of which the octet's byte is then moved down (AVX3_DL), or the octet's own.
      const int in_line = (o - group.first_octet) % view.order.interleave;
      const uint8_t* line = bytes + plane_byte(view.order, group, 0, o - in_line, 0);
      hn::Vec<DI> bits[kPlanes];
      for (int p = 0; p < kStored; ++p) {
        bits[p] =
            hn::ShiftRightSame(LoadOctets(di, view.order, line + p * line_bytes, row), 8 * in_line);
      }
      if constexpr (kStored < kPlanes) {  // unfold()
        const auto sign = bits[0], low = bits[1], high = bits[2];
        bits[1] = hn::Not(hn::Xor(sign, hn::Or(low, high)));
        bits[2] = hn::Not(hn::Xor(sign, high));
        bits[3] = hn::Not(hn::Xor(sign, hn::And(low, high)));
      }
      for (auto& of_plane : bits) of_plane = hn::Not(of_plane);
      const auto sign = hn::Set(di, INT32_MIN);
      const int32_t* columns = view.source + 8 * int64_t{o};
      for (int bit = 0; bit < 8; ++bit) {
        const int32_t column = columns[bit];
        if (column < 0) continue;
        V value = constant;
        for (int p = 0; p < kPlanes; ++p) {
          const auto flip = hn::And(hn::ShiftLeftSame(bits[p], 31 - bit), sign);
          value = hn::Add(value, hn::Xor(c[p], hn::BitCast(d, flip)));
        }
        if (view.column_scale != nullptr) {
          value = hn::Mul(value, hn::Set(d, view.column_scale[column]));
        }
        hn::StoreU(value, d, out + column * stride + row);
      }
    }
  }
}

void DecodeTiles(const PlaneTilesView& view, int64_t first, int64_t count, float* out,
                 int64_t stride) {
  using Kernel = void (*)(const PlaneTilesView&, const PlaneGroup&, int, int64_t, float*, int64_t);
  static constexpr Kernel kKernels[kMaxPlanes + 1] = {
      nullptr,          DecodeSegment<1>, DecodeSegment<2>, DecodeSegment<3>, DecodeSegment<4>,
      DecodeSegment<5>, DecodeSegment<6>, DecodeSegment<7>, DecodeSegment<8>};
  const int tile_rows = view.order.tile_rows;
  for (int64_t tile = first; tile < first + count; ++tile) {
    float* to = out + (tile - first) * tile_rows;
    for (int g = 0; g < view.group_count; ++g) {
      const PlaneGroup& group = view.groups[g];
      for (int s = group.first_segment; s < group.first_segment + group.segments; ++s) {
        const Kernel kernel = group.stored < group.planes
                                  ? DecodeSegment<kFoldedPlanes, kFoldedStored>
                                  : kKernels[group.planes];
        kernel(view, group, s, tile, to, stride);
      }
    }
    if (view.scattered.start != nullptr) DecodeScattered(view, tile, to, stride);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace billm::kernels
HWY_AFTER_NAMESPACE();
#endif

#endif
