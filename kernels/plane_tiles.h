// PlaneTiles: the form in which a packed layer is run, on the CPU and on a GPU. It is made once
// when a model is loaded (include/billm/pack/plane_tiles.h) from the planes of the file
// (docs/format.md).
//
// Every layer becomes a sum of +-1 bit planes With
// the levels L_0 <= ... <= L_n that a weight's magnitude can have (L_0 = 0 where weights are
// pruned), its sign s = +-1 and its class t:
//   s * L_t = 1/2 * (c_0 s + sum_{j=1..n} c_j u_j),   u_j = s if t >= j else -s,
//   c_0 = L_0 + L_n,   c_j = L_j - L_{j-1}:
// n + 1 planes, for which a row's part of y = W x is a weighted sum of n + 1 sums of +-x. An
// integer of b bits is
//   (code - zero) * step = 1/2 * sum_k 2^k step * p_k + step * ((2^b - 1) / 2 - zero),  p_k = +-1:
// b planes and a constant, which is multiplied by the sum of x.
//
// Columns are put into another order: a *segment* has columns of one group that share their levels
// (the ordinary or the salient ones), at most kSegmentColumns, and is filled up to a multiple of 8
// with columns whose x is 0. Eight columns of a row are one byte of a plane, an *octet*; column i
// of the octet is bit i.
//
// Rows are put into tiles. The bytes of a tile:
//   [lines][stored planes][place_of_row][interleave],   octet = line * interleave + last index
// where a line has `interleave` octets. Segments with different numbers of planes are kept apart
// (PlaneGroup): each group has its own lines.
#pragma once

#include <cstdint>

#include "billm/base/host_device.h"

namespace billm::kernels {

inline constexpr int kSegmentColumns = 256;  // columns of a segment, at most
inline constexpr int kMaxPlanes = 8;

// How bytes are ordered.
struct TileOrder {
  int tile_rows = 64;
  int interleave = 1;
  // The first half of a tile's rows have the even places, the second half the odd ones (kernels
  // that work on pairs of bytes want it).
  bool split = true;
  // Four planes of pruned weights with three classes are stored as three: the sign, and the two
  // bits of the number of the level, 0 (pruned) to 3; unfold() makes the four.
  bool folded = false;
  BILLM_HOST_DEVICE int place(int row) const {  // row 0..tile_rows-1
    if (!split) return row;
    return row < tile_rows / 2 ? 2 * row : 2 * (row - tile_rows / 2) + 1;
  }
  BILLM_HOST_DEVICE int64_t line_bytes() const { return int64_t{1} * tile_rows * interleave; }
  bool operator==(const TileOrder&) const = default;
};

struct PlaneSegment {
  int32_t first_octet = 0;  // among the columns in run order, counted through all segments
  int32_t octets = 0;
  int32_t level_row = 0;  // of its first level (integers: its step)
  int32_t levels = 0;     // how many; 1 for integers
};

// Consecutive segments with the same number of planes. Its octets start at a multiple of
// `interleave`.
struct PlaneGroup {
  int32_t planes = 0;
  int32_t stored = 0;  // planes that are stored: as many, but for folded ones
  int32_t first_segment = 0, segments = 0;
  int32_t first_octet = 0, octets = 0;  // octets: a multiple of interleave
  int64_t offset = 0;                   // of its bytes in a tile
};

enum class LevelKind : uint8_t {
  kLog8,     // codes on the logarithmic grid of include/billm/codes/scales.h
  kFloat,    // fp32
  kInteger,  // fp32 steps
};

// Integers scattered among binary weights (PB-LLM). Such a layer has no salient columns, so
// segments stand in the order of the columns. The entries of a row stand together, those of its
// segment 0 first, and
//   y += sum_entries (code * step[row] + shift[row][segment]) * x[8 * first_octet + column]
// with x in run order, where the shift takes off what the planes say there.
struct ScatteredView {
  const uint32_t* start = nullptr;  // [rows + 1]: first entry of a row; null: no integers
  const uint16_t* count = nullptr;  // [rows][segments]
  const uint8_t* column = nullptr;  // [entries]: within the segment
  const uint8_t* code = nullptr;    // [entries]
  const float* step = nullptr;      // [rows]
  const float* shift = nullptr;     // [rows][segments]
};

// A layer [rows, cols]. Pointers are to the memory of the device that runs it, but for `segments`
// and `groups`, which are on the host.
struct PlaneTilesView {
  int64_t rows = 0, cols = 0;
  TileOrder order;
  int32_t octets = 0;  // in run order; 8 * octets columns
  int32_t segment_count = 0, group_count = 0;
  const PlaneSegment* segments = nullptr;
  const PlaneGroup* groups = nullptr;
  int64_t tile_bytes = 0;
  const uint8_t* planes = nullptr;  // [tiles][tile_bytes]
  LevelKind level_kind = LevelKind::kLog8;
  bool pruned = false;  // there is a level 0 below the stored ones
  int32_t level_rows = 0;
  float base = 1;                    // kLog8
  const uint8_t* codes = nullptr;    // kLog8: [tiles][level_rows][tile_rows]
  const float* levels = nullptr;     // else:  [tiles][level_rows][tile_rows]
  const float* constants = nullptr;  // [tiles][segments][tile_rows], added to every weight of the
                                     // segment; null if there are none (always if pruned)
  const int32_t* source = nullptr;   // [8 * octets]: original column, -1: none
  const float* column_scale = nullptr;  // [cols], x is multiplied by it; null if there are none
  ScatteredView scattered;

  BILLM_HOST_DEVICE int64_t tiles() const { return (rows + order.tile_rows - 1) / order.tile_rows; }
  // Planes of a segment with `levels` levels.
  BILLM_HOST_DEVICE static int planes_of(int levels, bool pruned) {
    return levels + (pruned ? 1 : 0);
  }
};

// Byte of the stored plane `plane` of octet `octet` (counted through all segments) and row `row` of
// a tile, from the tile's first byte.
BILLM_HOST_DEVICE inline int64_t plane_byte(const TileOrder& order, const PlaneGroup& group,
                                            int plane, int64_t octet, int row) {
  const int64_t local = octet - group.first_octet;
  const int64_t line = local / order.interleave * group.stored + plane;
  return group.offset + line * order.line_bytes() +
         int64_t{1} * order.place(row) * order.interleave + local % order.interleave;
}

inline constexpr int kFoldedPlanes = 4, kFoldedStored = 3;

// The planes of words (bytes, or more) of the three stored ones.
template <typename Word>
BILLM_HOST_DEVICE inline void unfold(Word sign, Word low, Word high, Word planes[kFoldedPlanes]) {
  planes[0] = sign;
  planes[1] = static_cast<Word>(~(sign ^ (low | high)));
  planes[2] = static_cast<Word>(~(sign ^ high));
  planes[3] = static_cast<Word>(~(sign ^ (low & high)));
}

// The bytes of an octet's planes, planes [group.planes].
BILLM_HOST_DEVICE inline void plane_octets(const uint8_t* tile, const TileOrder& order,
                                           const PlaneGroup& group, int64_t octet, int row,
                                           uint8_t* planes) {
  for (int p = 0; p < group.stored; ++p) {
    planes[p] = tile[plane_byte(order, group, p, octet, row)];
  }
  if (group.stored < group.planes) unfold<uint8_t>(planes[0], planes[1], planes[2], planes);
}

// The coefficients c_0..c_{planes-1} of a row's planes, halved, from its levels (in growing class)
// or its step.
BILLM_HOST_DEVICE inline void plane_coefficients(LevelKind kind, bool pruned, int planes,
                                                 const float* level, float* coefficient) {
  if (kind == LevelKind::kInteger) {
    float step = 0.5f * level[0];
    for (int k = 0; k < planes; ++k, step *= 2) coefficient[k] = step;
    return;
  }
  const int last = pruned ? planes - 2 : planes - 1;
  const float first = pruned ? 0.0f : level[0];
  coefficient[0] = 0.5f * (first + level[last]);
  float below = first;
  for (int j = 1; j < planes; ++j) {
    const float here = level[pruned ? j - 1 : j];
    coefficient[j] = 0.5f * (here - below);
    below = here;
  }
}

}  // namespace billm::kernels
