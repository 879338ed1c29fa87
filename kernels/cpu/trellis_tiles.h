// A trellis layer (docs/format.md) in the form in which the CPU runs it, made once at loading.
//
// A tile has 64 rows of one segment. Of each plane and group of four columns it has its own bytes:
//   [tiles][groups][8 K + 1],
// the 8 - K bits before its first row, then K bits a row, the most significant bit first. So a
// row's state is the byte at bit K * row, whatever stands in other tiles, and the states of 64 rows
// come from one place. That is 1 byte more than the file has: 3 % with K = 4, 12 % with K = 1.
#pragma once

#include <hwy/aligned_allocator.h>

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cpu/trellis_viterbi.h"

namespace billm::kernels {

inline constexpr int kTrellisTileRows = 64;
inline constexpr int kMaxTrellisPlanes = 4;

// Rows of every segment but the last, which has the rest.
int64_t trellis_segment_rows(int64_t rows);
// Bytes of the stream of one group.
int64_t trellis_group_bytes(int64_t rows, int k);

// The table in the orders that the kernels read.
struct TrellisTable {
  explicit TrellisTable(const int8_t entries[kTrellisStates][kTrellisColumns]);
  alignas(64) int8_t column[kTrellisColumns][kTrellisStates];
  alignas(64) int16_t wide[kTrellisColumns][kTrellisStates];  // * 256
  float longest;  // sqrt of the largest sum of four squares, at least 1
};

// A plane as it is stored: groups of trellis_group_bytes() each.
struct TrellisPlaneSource {
  int k = 0;
  float gain = 0;
  const uint8_t* stream = nullptr;
};

// A layer [rows, cols]: weight (r, c) is scale[r] * sum_planes gain * T[state][c % 4].
struct TrellisTilesView {
  struct Plane {
    int k = 0;
    float gain = 0;
    const uint8_t* bytes = nullptr;  // 64 bytes behind the end can be read
  };
  int64_t rows = 0, cols = 0, groups = 0, tiles = 0;
  int plane_count = 0;
  Plane planes[kMaxTrellisPlanes];
  const float* scale = nullptr;  // [tiles * 64]; 0 for rows that are none
  const TrellisTable* table = nullptr;

  static int64_t group_bytes(int k) { return 8 * int64_t{k} + 1; }
  int64_t tile_bytes(int k) const { return groups * group_bytes(k); }
};

class TrellisTiles {
 public:
  // scale [rows], whatever all weights have in common included. `table` must outlive this.
  TrellisTiles(int64_t rows, int64_t cols, const TrellisTable& table,
               std::span<const TrellisPlaneSource> planes, const float* scale);

  const TrellisTilesView& view() const { return view_; }
  int64_t bytes() const { return bytes_; }

 private:
  TrellisTilesView view_;
  int64_t bytes_ = 0;
  std::vector<hwy::AlignedFreeUniquePtr<uint8_t[]>> planes_;
  std::vector<float> scale_;
};

}  // namespace billm::kernels
