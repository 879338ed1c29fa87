// The product of a group by table lookups in 16 bytes (pshufb, tbl): lines of 64 rows and 1 octet.
// Compiled once per Highway target (hence the odd include guard).
#if defined(BILLM_GEMV_PSHUFB_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BILLM_GEMV_PSHUFB_INL_H_
#undef BILLM_GEMV_PSHUFB_INL_H_
#else
#define BILLM_GEMV_PSHUFB_INL_H_
#endif

// clang-format off
#include "hwy/cache_control.h"
#include "hwy/highway.h"
// clang-format on
#include "kernels/cpu/gemv_segment-inl.h"

#if HWY_TARGET > HWY_AVX3_DL && HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
HWY_BEFORE_NAMESPACE();
namespace billm::kernels {
namespace HWY_NAMESPACE {

constexpr TileOrder kOrder = {.tile_rows = 64, .interleave = 1, .split = true, .folded = true};

// Octet by octet: a vector has an octet of as many rows as it has bytes. The sums of a segment fit
// 16 bits; those of the even bytes are found by taking the odd ones from the sum of pairs.
template <int kPlanes, int kTokens, int kStored = kPlanes>
void GroupProduct(const Task& task) {
  const D d;
  const DI di;
  const hn::CappedTag<uint8_t, 64> d8;
  const hn::RepartitionToWide<decltype(d8)> d16;
  const hn::Rebind<int16_t, DI> half;
  const int bytes_in = static_cast<int>(hn::Lanes(d8)), n = static_cast<int>(hn::Lanes(d));
  const PlaneGroup& group = task.group;
  const uint8_t* lines = task.view.planes + task.tile * task.view.tile_bytes + group.offset;
  const auto nibble = hn::Set(d8, 0x0f);
  alignas(64) uint16_t sums16[kPlanes][kTokens][kMostRows];
  for (int s = group.first_segment; s < group.first_segment + group.segments; ++s) {
    const PlaneSegment& segment = task.view.segments[s];
    const int begin = segment.first_octet - group.first_octet;
    for (int part = 0; part < kMostRows; part += bytes_in) {
      hn::Vec<decltype(d16)> all[kPlanes][kTokens], odd[kPlanes][kTokens];
      for (int p = 0; p < kPlanes; ++p) {
        for (int t = 0; t < kTokens; ++t) all[p][t] = odd[p][t] = hn::Zero(d16);
      }
      for (int o = begin; o < begin + segment.octets; ++o) {
        hn::Vec<decltype(d8)> octets[kPlanes];
        for (int p = 0; p < kStored; ++p) {
          const uint8_t* line = lines + 64 * (int64_t{o} * kStored + p) + part;
          hwy::Prefetch(line + kPrefetch);
          octets[p] = hn::Load(d8, line);
        }
        if constexpr (kStored < kPlanes) {  // unfold()
          const auto sign = octets[0], low = octets[1], high = octets[2];
          octets[1] = hn::Not(hn::Xor(sign, hn::Or(low, high)));
          octets[2] = hn::Not(hn::Xor(sign, high));
          octets[3] = hn::Not(hn::Xor(sign, hn::And(low, high)));
        }
        for (int p = 0; p < kPlanes; ++p) {
          const auto bytes = octets[p];
          const auto low = hn::And(bytes, nibble);
          const auto high =
              hn::And(hn::BitCast(d8, hn::ShiftRight<4>(hn::BitCast(d16, bytes))), nibble);
          for (int t = 0; t < kTokens; ++t) {
            const uint8_t* table = task.inputs[t].tables() + 32 * (int64_t{group.first_octet} + o);
            const auto a = hn::BitCast(d16, hn::TableLookupBytes(hn::LoadDup128(d8, table), low));
            const auto b =
                hn::BitCast(d16, hn::TableLookupBytes(hn::LoadDup128(d8, table + 16), high));
            all[p][t] = hn::Add(all[p][t], hn::Add(a, b));
            odd[p][t] = hn::Add(odd[p][t], hn::Add(hn::ShiftRight<8>(a), hn::ShiftRight<8>(b)));
          }
        }
      }
      for (int p = 0; p < kPlanes; ++p) {
        for (int t = 0; t < kTokens; ++t) {
          uint16_t* to = sums16[p][t] + part / 2;
          hn::Store(hn::Sub(all[p][t], hn::ShiftLeft<8>(odd[p][t])), d16, to);
          hn::Store(odd[p][t], d16, to + kMostRows / 2);
        }
      }
    }
    const auto bias = hn::Set(di, 2 * kBias * segment.octets);
    for (int row = 0; row < kMostRows; row += n) {
      V sums[kPlanes][kTokens];
      for (int p = 0; p < kPlanes; ++p) {
        for (int t = 0; t < kTokens; ++t) {
          const auto from = reinterpret_cast<const int16_t*>(sums16[p][t]) + row;
          const auto sum = hn::PromoteTo(di, hn::LoadU(half, from));
          sums[p][t] = hn::ConvertTo(d, hn::Sub(sum, bias));
        }
      }
      AddSegment<kPlanes, kTokens>(d, task, s, row, sums);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace billm::kernels
HWY_AFTER_NAMESPACE();
#endif

#endif
