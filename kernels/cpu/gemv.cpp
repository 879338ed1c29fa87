// Highway implementation of gemv.h: products token by token and the dispatch. The parts:
// gemv_levels (coefficients), gemv_input (tables), gemv_vbmi and gemv_pshufb (the product of a
// group), gemv_scattered (integers), gemv_decode (tiles to fp32).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gemv.cpp"
#include "hwy/foreach_target.h"  // must come before highway.h
// clang-format off
#include "hwy/highway.h"
// clang-format on

#include <algorithm>

// Each is empty where the target has no use for it. All are included for every target: their guards
// count the times.
#include "kernels/cpu/gemv.h"
#include "kernels/cpu/gemv_decode-inl.h"
#include "kernels/cpu/gemv_input-inl.h"
#include "kernels/cpu/gemv_pshufb-inl.h"
#include "kernels/cpu/gemv_scattered-inl.h"
#include "kernels/cpu/gemv_vbmi-inl.h"

HWY_BEFORE_NAMESPACE();
namespace billm::kernels {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128

constexpr TileOrder kOrder = {.tile_rows = 64, .interleave = 1, .split = false, .folded = true};

void Gemv(const PlaneTilesView& view, const GemvInput* inputs, int tokens, int64_t first,
          int64_t count, float* y, int64_t stride) {
  for (int t = 0; t < tokens; ++t) {
    gemv_reference(view, inputs[t].x(), first, count, y + t * stride);
  }
}

void DecodeTiles(const PlaneTilesView& view, int64_t first, int64_t count, float* out,
                 int64_t stride) {
  decode_reference(view, first, count, out, stride);
}

#else

template <int kPlanes, int kStored = kPlanes>
void GroupTokens(const Task& task, int tokens) {
  // More sums than this do not fit the registers.
  if constexpr (kPlanes <= 2) {
    if (tokens == 4) return GroupProduct<kPlanes, 4, kStored>(task);
  }
  if constexpr (kPlanes <= 4) {
    if (tokens == 2) return GroupProduct<kPlanes, 2, kStored>(task);
  }
  for (int t = 0; t < tokens; ++t) {
    Task one = {task.view, task.group, task.inputs + t, task.tile, task.y + t * kMostRows};
    GroupProduct<kPlanes, 1, kStored>(one);
  }
}

// Tokens in fours, twos and ones.
void Gemv(const PlaneTilesView& view, const GemvInput* inputs, int tokens, int64_t first,
          int64_t count, float* y, int64_t stride) {
  using Kernel = void (*)(const Task&, int);
  static constexpr Kernel kKernels[kMaxPlanes + 1] = {
      nullptr,        GroupTokens<1>, GroupTokens<2>, GroupTokens<3>, GroupTokens<4>,
      GroupTokens<5>, GroupTokens<6>, GroupTokens<7>, GroupTokens<8>};
  const int tile_rows = view.order.tile_rows;
  alignas(64) float sums[kMaxGemvTokens * kMostRows];
  for (int64_t tile = first; tile < first + count; ++tile) {
    std::fill_n(sums, tokens * kMostRows, 0.0f);
    for (int g = 0; g < view.group_count; ++g) {
      const PlaneGroup& group = view.groups[g];
      const int at_once = group.planes <= 2 ? 4 : group.planes <= 4 ? 2 : 1;
      for (int t = 0; t < tokens;) {
        const int left = tokens - t;
        const int now = left >= at_once ? at_once : left >= 2 ? 2 : 1;
        const Kernel kernel = group.stored < group.planes
                                  ? GroupTokens<kFoldedPlanes, kFoldedStored>
                                  : kKernels[group.planes];
        kernel({view, group, inputs + t, tile, sums + t * kMostRows}, std::min(now, at_once));
        t += std::min(now, at_once);
      }
    }
    const int64_t row = tile * tile_rows;
    const int64_t rows = std::min<int64_t>(tile_rows, view.rows - row);
    if (view.scattered.start != nullptr) AddScattered(view, inputs, tokens, row, rows, sums);
    for (int t = 0; t < tokens; ++t) {
      std::copy_n(sums + t * kMostRows, rows, y + t * stride + row);
    }
  }
}

#endif

TileOrder Order() { return kOrder; }

}  // namespace HWY_NAMESPACE
}  // namespace billm::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace billm::kernels {

HWY_EXPORT(Order);
HWY_EXPORT(FillSegment);
HWY_EXPORT(Gemv);
HWY_EXPORT(DecodeTiles);

TileOrder cpu_tile_order() { return HWY_DYNAMIC_DISPATCH(Order)(); }

void GemvInput::reserve(const PlaneTilesView& view) {
  if (octets_ < view.octets) {
    const auto octets = static_cast<size_t>(view.octets);
    tables_ = hwy::AllocateAligned<uint8_t>(32 * octets);
    x_ = hwy::AllocateAligned<float>(8 * octets + kSegmentColumns);
    if (tables_ == nullptr || x_ == nullptr) throw std::bad_alloc();
    // What stands between groups, and behind the end, is read and not used.
    std::fill_n(tables_.get(), 32 * octets, uint8_t{0});
    std::fill_n(x_.get(), 8 * octets + kSegmentColumns, 0.0f);
    octets_ = view.octets;
  }
  if (segments_ < view.segment_count) {
    scale_ = hwy::AllocateAligned<float>(static_cast<size_t>(view.segment_count));
    sum_ = hwy::AllocateAligned<float>(static_cast<size_t>(view.segment_count));
    if (scale_ == nullptr || sum_ == nullptr) throw std::bad_alloc();
    segments_ = view.segment_count;
  }
}

void GemvInput::fill(const PlaneTilesView& view, const float* x, int first, int count) {
  for (int s = first; s < first + count; ++s) {
    HWY_DYNAMIC_DISPATCH(FillSegment)
    (view, x, s, x_.get(), tables_.get(), scale_.get(), sum_.get());
  }
}

void gemv(const PlaneTilesView& view, const GemvInput* inputs, int tokens, int64_t first,
          int64_t count, float* y, int64_t stride) {
  HWY_DYNAMIC_DISPATCH(Gemv)(view, inputs, tokens, first, count, y, stride);
}

void decode_tiles(const PlaneTilesView& view, int64_t first, int64_t count, float* out,
                  int64_t stride) {
  HWY_DYNAMIC_DISPATCH(DecodeTiles)(view, first, count, out, stride);
}

}  // namespace billm::kernels
#endif
