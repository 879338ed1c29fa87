// Vectors of gemv.cpp, and the coefficients of a segment's planes from its levels.
// Compiled once per Highway target (hence the odd include guard).
#if defined(BILLM_GEMV_LEVELS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BILLM_GEMV_LEVELS_INL_H_
#undef BILLM_GEMV_LEVELS_INL_H_
#else
#define BILLM_GEMV_LEVELS_INL_H_
#endif

#include "billm/base/log8.h"
#include "hwy/highway.h"
#include "kernels/cpu/gemv.h"

HWY_BEFORE_NAMESPACE();
namespace billm::kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::CappedTag<float, 16>;
using DI = hn::RebindToSigned<D>;
using V = hn::Vec<D>;

constexpr int kBias = 127;     // of table entries
constexpr int kMostRows = 64;  // of a tile
// How far ahead planes are fetched: hardware does not look past the end of a page. In memory 1.4
// times as fast as without on a Xeon of 2023 (1 thread, 4096 x 4096 layers of 2 and 4 planes).
[[maybe_unused]] constexpr int kPrefetch = 4096;

alignas(64) constexpr float kSmallSteps[16] = {
    kLog8Steps[0] * 0x1p-16f,  kLog8Steps[1] * 0x1p-16f,  kLog8Steps[2] * 0x1p-16f,
    kLog8Steps[3] * 0x1p-16f,  kLog8Steps[4] * 0x1p-16f,  kLog8Steps[5] * 0x1p-16f,
    kLog8Steps[6] * 0x1p-16f,  kLog8Steps[7] * 0x1p-16f,  kLog8Steps[8] * 0x1p-16f,
    kLog8Steps[9] * 0x1p-16f,  kLog8Steps[10] * 0x1p-16f, kLog8Steps[11] * 0x1p-16f,
    kLog8Steps[12] * 0x1p-16f, kLog8Steps[13] * 0x1p-16f, kLog8Steps[14] * 0x1p-16f,
    kLog8Steps[15] * 0x1p-16f};

// kSmallSteps[index], index 0..15.
HWY_INLINE V SmallSteps(D d, hn::Vec<DI> index) {
#if HWY_TARGET <= HWY_AVX3
  return hn::TableLookupLanes(hn::Load(d, kSmallSteps), hn::IndicesFromVec(d, index));
#elif HWY_TARGET == HWY_AVX2
  const DI di;
  const auto low = hn::IndicesFromVec(d, hn::And(index, hn::Set(di, 7)));
  const auto upper = hn::RebindMask(d, hn::Gt(index, hn::Set(di, 7)));
  return hn::IfThenElse(upper, hn::TableLookupLanes(hn::Load(d, kSmallSteps + 8), low),
                        hn::TableLookupLanes(hn::Load(d, kSmallSteps), low));
#else
  return hn::GatherIndex(d, kSmallSteps, index);
#endif
}

// log8_decode(code, 1) of a vector of codes: see include/billm/base/log8.h.
HWY_INLINE V DecodeLog8(D d, const uint8_t* codes) {
  const DI di;
  const hn::Rebind<uint8_t, DI> d8;
  const auto code = hn::PromoteTo(di, hn::LoadU(d8, codes));
  const auto next = hn::Add(code, hn::Set(di, 1));
  const V step = SmallSteps(d, hn::And(next, hn::Set(di, 15)));
  const auto octave = hn::ShiftLeft<23>(hn::ShiftRight<4>(next));
  const V value = hn::BitCast(d, hn::Add(hn::BitCast(di, step), octave));
  return hn::IfThenZeroElse(hn::RebindMask(d, hn::Eq(code, hn::Zero(di))), value);
}

// Twice the coefficients of a segment's planes for the rows [row, row + lanes) of a tile; without
// view.base.
template <int kPlanes>
HWY_INLINE void Coefficients(D d, const PlaneTilesView& view, const PlaneSegment& segment,
                             int64_t tile, int row, V* c) {
  const int64_t at = (tile * view.level_rows + segment.level_row) * view.order.tile_rows + row;
  const int64_t next = view.order.tile_rows;
  if (view.level_kind == LevelKind::kInteger) {
    c[0] = hn::LoadU(d, view.levels + at);
    for (int p = 1; p < kPlanes; ++p) c[p] = hn::Add(c[p - 1], c[p - 1]);
    return;
  }
  V level[kPlanes];
  const int pruned = view.pruned ? 1 : 0;
  level[0] = hn::Zero(d);
  for (int p = pruned; p < kPlanes; ++p) {
    const int64_t from = at + (p - pruned) * next;
    level[p] = view.level_kind == LevelKind::kLog8 ? DecodeLog8(d, view.codes + from)
                                                   : hn::LoadU(d, view.levels + from);
  }
  c[0] = hn::Add(level[0], level[kPlanes - 1]);
  for (int p = 1; p < kPlanes; ++p) c[p] = hn::Sub(level[p], level[p - 1]);
}

}  // namespace HWY_NAMESPACE
}  // namespace billm::kernels
HWY_AFTER_NAMESPACE();

#endif
