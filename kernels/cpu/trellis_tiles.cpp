// See trellis_tiles.h.
#include "kernels/cpu/trellis_tiles.h"

#include <algorithm>
#include <cmath>
#include <new>

namespace billm::kernels {
namespace {

constexpr int64_t kMostSegmentRows = 512;
constexpr int64_t kMargin = 64;  // bytes behind a plane

// `count` bits from bit `first` of a stream to the beginning of `out`, whose last byte is filled up
// with zeros.
void copy_bits(const uint8_t* stream, int64_t first, int64_t count, uint8_t* out) {
  const uint8_t* from = stream + first / 8;
  const int shift = static_cast<int>(first % 8);
  for (int64_t done = 0; done < count; done += 8, ++from) {
    const int64_t left = std::min<int64_t>(8, count - done);
    unsigned bits = unsigned{*from} << shift;
    if (shift + left > 8) bits |= unsigned{from[1]} >> (8 - shift);
    *out++ = static_cast<uint8_t>(bits & (0xff00u >> left));
  }
}

}  // namespace

int64_t trellis_segment_rows(int64_t rows) {
  const int64_t count = std::max<int64_t>((rows + kMostSegmentRows - 1) / kMostSegmentRows, 1);
  const int64_t share = kTrellisTileRows * count;
  return kTrellisTileRows * ((rows + share - 1) / share);
}

int64_t trellis_group_bytes(int64_t rows, int k) {
  if (rows == 0) return 0;
  const int64_t segment = trellis_segment_rows(rows);
  return ((rows + segment - 1) / segment * (8 - k) + rows * k + 7) / 8;
}

TrellisTable::TrellisTable(const int8_t entries[kTrellisStates][kTrellisColumns]) : longest(1) {
  int most = 1;
  for (int s = 0; s < kTrellisStates; ++s) {
    int square = 0;
    for (int j = 0; j < kTrellisColumns; ++j) {
      column[j][s] = entries[s][j];
      wide[j][s] = static_cast<int16_t>(entries[s][j] * 256);
      square += entries[s][j] * entries[s][j];
    }
    most = std::max(most, square);
  }
  longest = std::sqrt(static_cast<float>(most));
}

TrellisTiles::TrellisTiles(int64_t rows, int64_t cols, const TrellisTable& table,
                           std::span<const TrellisPlaneSource> planes, const float* scale) {
  view_.rows = rows;
  view_.cols = cols;
  view_.groups = (cols + kTrellisColumns - 1) / kTrellisColumns;
  view_.tiles = (rows + kTrellisTileRows - 1) / kTrellisTileRows;
  view_.table = &table;
  scale_.assign(static_cast<size_t>(view_.tiles * kTrellisTileRows), 0.0f);
  std::copy_n(scale, rows, scale_.begin());
  view_.scale = scale_.data();
  bytes_ = static_cast<int64_t>(scale_.size() * sizeof(float));
  const int64_t segment_rows = trellis_segment_rows(rows);
  for (const TrellisPlaneSource& source : planes) {
    const int k = source.k;
    const int64_t in_group = view_.group_bytes(k), size = view_.tiles * view_.tile_bytes(k);
    auto memory = hwy::AllocateAligned<uint8_t>(static_cast<size_t>(size + kMargin));
    if (memory == nullptr) throw std::bad_alloc();
    std::fill_n(memory.get(), size + kMargin, uint8_t{0});
    const int64_t stream_bytes = trellis_group_bytes(rows, k);
    for (int64_t tile = 0; tile < view_.tiles; ++tile) {
      const int64_t row = tile * kTrellisTileRows, segment = row / segment_rows;
      // Of the segment's stream: where its first row's state begins.
      const int64_t first = segment * (segment_rows * k + 8 - k) + (row % segment_rows) * k;
      const int64_t count = std::min<int64_t>(kTrellisTileRows, rows - row) * k + 8 - k;
      for (int64_t g = 0; g < view_.groups; ++g) {
        copy_bits(source.stream + g * stream_bytes, first, count,
                  memory.get() + tile * view_.tile_bytes(k) + g * in_group);
      }
    }
    view_.planes[view_.plane_count++] = {k, source.gain, memory.get()};
    bytes_ += size;
    planes_.push_back(std::move(memory));
  }
}

}  // namespace billm::kernels
