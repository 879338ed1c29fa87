// Highway implementation of trellis_gemv.h. The parts: trellis_input (tables), trellis_vbmi and
// trellis_words (states and lookups).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/trellis_gemv.cpp"
#include "hwy/foreach_target.h"  // must come before highway.h
// clang-format off
#include "hwy/highway.h"
#include "hwy/cache_control.h"
// clang-format on

#include <algorithm>

// Of the two below one is empty. Both are included for every target: their guards count the times.
#include "kernels/cpu/trellis_gemv.h"
#include "kernels/cpu/trellis_input-inl.h"
#include "kernels/cpu/trellis_vbmi-inl.h"
#include "kernels/cpu/trellis_words-inl.h"

HWY_BEFORE_NAMESPACE();
namespace billm::kernels {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128

void Gemv(const TrellisTilesView& view, const TrellisInput* inputs, int tokens, int64_t first,
          int64_t count, float* y, int64_t stride) {
  trellis_gemv_reference(view, inputs, tokens, first, count, y, stride);
}

void Decode(const TrellisTilesView& view, int64_t first, int64_t count, float* out,
            int64_t stride) {
  trellis_decode_reference(view, first, count, out, stride);
}

#else

namespace hn = hwy::HWY_NAMESPACE;

// Tiles that pass a chunk's tables while these are in the nearest cache.
constexpr int64_t kBatch = 8;

// total[i] += sums[i] * factor for some tiles.
HWY_INLINE void AddSums(const int16_t* sums, int64_t tiles, float factor, float* total) {
  const hn::CappedTag<float, 16> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::Rebind<int16_t, decltype(d)> half;
  const int64_t n = static_cast<int64_t>(hn::Lanes(d));
  const auto by = hn::Set(d, factor);
  for (int64_t i = 0; i < tiles * kTrellisTileRows; i += n) {
    const auto sum = hn::ConvertTo(d, hn::PromoteTo(di, hn::Load(half, sums + i)));
    hn::Store(hn::Add(hn::Load(d, total + i), hn::Mul(sum, by)), d, total + i);
  }
}

// total[tile][place of a row] += the part of one plane and one chunk.
void AddChunk(const TrellisTilesView& view, const TrellisTilesView::Plane& plane, int64_t chunk,
              const TrellisInput& input, int64_t first, int64_t count, float* total) {
  const int k = plane.k;
  const StateReader reader(k);
  const int64_t begin = chunk * kTrellisChunk, tile_bytes = view.tile_bytes(k);
  const int64_t groups = std::min<int64_t>(kTrellisChunk, view.groups - begin);
  const int64_t group_bytes = TrellisTilesView::group_bytes(k), chunk_bytes = groups * group_bytes;
  const uint8_t* tables = input.tables() + begin * kTrellisTableBytes;
  const uint8_t* bytes = plane.bytes + begin * group_bytes;
  const float factor = plane.gain * input.step()[chunk];
  alignas(64) int16_t sums[kTilesAtOnce * kTrellisTileRows];
  for (int64_t t = 0; t < count;) {
    const uint8_t* of_tile = bytes + (first + t) * tile_bytes;
    const int64_t now = count - t >= kTilesAtOnce ? kTilesAtOnce : 1;
    // The next chunk, which comes when the other tiles have passed this one: hardware does not
    // guess where.
    for (int64_t i = 0; i < now; ++i) {
      for (int64_t at = 0; at < chunk_bytes; at += 64) {
        __builtin_prefetch(of_tile + i * tile_bytes + chunk_bytes + at, 0, 2);
      }
    }
    if (now == kTilesAtOnce) {
      ChunkSums<kTilesAtOnce>(reader, group_bytes, of_tile, tile_bytes, groups, tables, sums);
    } else {
      ChunkSums<1>(reader, group_bytes, of_tile, tile_bytes, groups, tables, sums);
    }
    AddSums(sums, now, factor, total + t * kTrellisTileRows);
    t += now;
  }
}

void Gemv(const TrellisTilesView& view, const TrellisInput* inputs, int tokens, int64_t first,
          int64_t count, float* y, int64_t stride) {
  constexpr int64_t kSize = kBatch * kTrellisTileRows;
  alignas(64) float totals[kMaxTrellisTokens * kSize];
  const int64_t chunks = TrellisInput::chunks(view.cols);
  for (const int64_t end = first + count; first < end; first += kBatch) {
    const int64_t tiles = std::min(kBatch, end - first);
    std::fill_n(totals, tokens * kSize, 0.0f);
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      for (int t = 0; t < tokens; ++t) {
        for (int p = 0; p < view.plane_count; ++p) {
          AddChunk(view, view.planes[p], chunk, inputs[t], first, tiles, totals + t * kSize);
        }
      }
    }
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t row = (first + tile) * kTrellisTileRows;
      const auto rows = static_cast<int>(std::min<int64_t>(kTrellisTileRows, view.rows - row));
      for (int t = 0; t < tokens; ++t) {
        const float* total = totals + t * kSize + tile * kTrellisTileRows;
        for (int i = 0; i < rows; ++i) {
          y[t * stride + row + i] = total[Place(i)] * view.scale[row + i];
        }
      }
    }
  }
}

// The weights of one column of a tile: out [64].
void DecodeColumn(const TrellisTilesView& view, const uint8_t (*states)[kTrellisTileRows], int j,
                  const float* scale, float* out) {
  const hn::CappedTag<float, 16> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::Rebind<int8_t, decltype(d)> d8;
  const int n = static_cast<int>(hn::Lanes(d));
  alignas(64) int8_t entries[kMaxTrellisPlanes][kTrellisTileRows];
  const auto table = reinterpret_cast<const uint8_t*>(view.table->column[j]);
  for (int p = 0; p < view.plane_count; ++p) {
    LookUp64(table, states[p], reinterpret_cast<uint8_t*>(entries[p]));
  }
  for (int i = 0; i < kTrellisTileRows; i += n) {
    auto value = hn::Zero(d);
    for (int p = 0; p < view.plane_count; ++p) {
      const auto entry = hn::ConvertTo(d, hn::PromoteTo(di, hn::Load(d8, entries[p] + i)));
      value = hn::Add(value, hn::Mul(hn::Set(d, view.planes[p].gain), entry));
    }
    hn::StoreU(hn::Mul(value, hn::LoadU(d, scale + i)), d, out + i);
  }
}

void Decode(const TrellisTilesView& view, int64_t first, int64_t count, float* out,
            int64_t stride) {
  alignas(64) uint8_t states[kMaxTrellisPlanes][kTrellisTileRows];
  for (int64_t tile = first; tile < first + count; ++tile) {
    float* to = out + (tile - first) * kTrellisTileRows;
    for (int64_t g = 0; g < view.groups; ++g) {
      for (int p = 0; p < view.plane_count; ++p) {
        const int k = view.planes[p].k;
        const uint8_t* bytes =
            view.planes[p].bytes + tile * view.tile_bytes(k) + g * TrellisTilesView::group_bytes(k);
        ReadStates(StateReader(k), bytes, states[p]);
      }
      const int64_t column = g * kTrellisColumns;
      const auto columns = static_cast<int>(std::min<int64_t>(kTrellisColumns, view.cols - column));
      for (int j = 0; j < columns; ++j) {
        DecodeColumn(view, states, j, view.scale + tile * kTrellisTileRows,
                     to + (column + j) * stride);
      }
    }
  }
}

#endif

}  // namespace HWY_NAMESPACE
}  // namespace billm::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace billm::kernels {

HWY_EXPORT(FillChunk);
HWY_EXPORT(SplitTables);
HWY_EXPORT(Gemv);
HWY_EXPORT(Decode);

void TrellisInput::reserve(int64_t cols) {
  const int64_t count = chunks(cols);
  split_ = trellis_split_tables();
  if (chunks_ >= count) return;
  const auto bytes = static_cast<size_t>(count * kTrellisChunk * kTrellisTableBytes);
  tables_ = hwy::AllocateAligned<uint8_t>(bytes);
  step_ = hwy::AllocateAligned<float>(static_cast<size_t>(count));
  if (tables_ == nullptr || step_ == nullptr) throw std::bad_alloc();
  chunks_ = count;
}

bool trellis_split_tables() { return HWY_DYNAMIC_DISPATCH(SplitTables)(); }

void TrellisInput::fill(const TrellisTable& table, int64_t cols, const float* x, int64_t first,
                        int64_t count) {
  constexpr int64_t kColumns = kTrellisChunk * kTrellisColumns;
  alignas(64) float part[kColumns];
  for (int64_t chunk = first; chunk < first + count; ++chunk) {
    const int64_t begin = chunk * kColumns, size = std::min(kColumns, cols - begin);
    std::copy_n(x + begin, size, part);
    std::fill(part + size, part + kColumns, 0.0f);
    HWY_DYNAMIC_DISPATCH(FillChunk)
    (table, part, tables_.get() + chunk * kTrellisChunk * kTrellisTableBytes, step_.get() + chunk);
  }
}

void trellis_gemv(const TrellisTilesView& view, const TrellisInput* inputs, int tokens,
                  int64_t first, int64_t count, float* y, int64_t stride) {
  HWY_DYNAMIC_DISPATCH(Gemv)(view, inputs, tokens, first, count, y, stride);
}

void trellis_decode(const TrellisTilesView& view, int64_t first, int64_t count, float* out,
                    int64_t stride) {
  HWY_DYNAMIC_DISPATCH(Decode)(view, first, count, out, stride);
}

}  // namespace billm::kernels
#endif
