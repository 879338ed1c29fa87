// How a GPU kernel sees a packed layer: strips of 128 columns in tiles of 32 rows.
//
// The order of a tile is kCudaTileOrder: a line is 32 rows x 4 octets of one plane, 128 bytes. Four
// lines in a row are a *strip*: 32 rows x 128 columns, 512 bytes of one plane, of which each lane
// of a warp loads 16 bytes at once. Lane 4 g + t (g = 0..7, t = 0..3) gets
//
//   line t of the strip, rows 4 g .. 4 g + 3:   word j = row 4 g + j, 32 columns (4 octets)
//
// so that the four lanes of a group g hold the same four rows and all 128 columns. This is what the
// operand A of the tensor cores' mma.m16n8k32 wants: there, too, lane 4 g + t holds rows g and g +
// 8 and a quarter of the columns. Two mma of 16 rows take the words 0, 1 and the words 2, 3.
// Nothing is shuffled, neither at load nor in the kernel: which row of the tile is which row of the
// mma is only a matter of names, and so is the order of the columns, as long as x is put into the
// same.
//
// Segments may begin and end anywhere in a strip. What a strip and a segment have in common is a
// *place*: all its columns share the levels of the weights and the scale of x. See Schedule.
#pragma once

#include <cstdint>

#include "kernels/plane_tiles.h"

// Bodies of kernels are compiled by nvcc for the GPU and by the host's compiler for tests, which
// run them on an emulated GPU (tests/support/cuda_emulator.h).
#if defined(__CUDACC__)
#include <vector_types.h>
#define BILLM_KERNEL_BODY __device__ inline
#else
#define BILLM_KERNEL_BODY inline
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
#endif
#if defined(__CUDA_ARCH__)
#define BILLM_UNROLL _Pragma("unroll")
#else
#define BILLM_UNROLL
#endif

namespace billm::kernels::cuda {

inline constexpr TileOrder kCudaTileOrder = {
    .tile_rows = 32, .interleave = 4, .split = false, .folded = true};
inline constexpr int kWarp = 32;
inline constexpr int kTileRows = 32;
inline constexpr int kLineOctets = 4;
inline constexpr int kStripLines = 4;
inline constexpr int kStripOctets = kLineOctets * kStripLines;
inline constexpr int kStripColumns = 8 * kStripOctets;
inline constexpr int kLineBytes = kTileRows * kLineOctets;
inline constexpr int kStripBytes = kLineBytes * kStripLines;  // of one plane
inline constexpr int kMaxGroups = kMaxPlanes;  // groups differ in their number of planes
static_assert(kStripBytes == kWarp * 16);

// A PlaneGroup, cut into strips. Its last strip may have fewer than four lines.
struct StripGroup {
  int32_t planes = 0;
  int32_t stored =
      0;  // planes that are stored; 3 of 4 levels, which are always folded, see unfold()
  int32_t first_strip = 0, strips = 0;
  int32_t lines = 0;
  int64_t offset = 0;  // of its bytes in a tile
};

// The part of a segment that lies in a strip.
struct Place {
  int32_t strip = -1;  // -1: stands for none
  int32_t level_row = 0;
  int32_t segment = 0;
  int32_t unused = 0;  // 16 bytes: one load
};
static_assert(sizeof(Place) == 16);

struct PlaceRange {
  int32_t first = 0, last = 0;  // inclusive
};

// Places, numbered for a kernel that sums up `slots` places side by side: places r * slots .. r *
// slots + slots - 1 are round r, and all of a round have the same number of planes. The places of a
// strip are consecutive. If they fit into one round they are in one.
struct Schedule {
  const uint8_t* place_of_octet = nullptr;  // [strips][16], lowest 8 bits; a strip has at most 16
  const PlaceRange* of_strip = nullptr;     // [strips]
  const Place* places = nullptr;            // [a multiple of slots]
};
inline constexpr int kScheduleCount = 3;
// Index of the schedule for 4, 2, 1 slots.
BILLM_HOST_DEVICE inline int schedule_index(int slots) {
  return slots == 4 ? 0 : slots == 2 ? 1 : 2;
}

// Scattered integers: PlaneTilesView's, with segments told by where they are in the strips.
struct ScatteredLayer {
  const uint32_t* start = nullptr;  // null: there are none
  const uint16_t* count = nullptr;
  const uint8_t* column = nullptr;
  const uint8_t* code = nullptr;
  const float* step = nullptr;
  const float* shift = nullptr;
  const int32_t* first_octet = nullptr;  // [segments]: strip * 16 + octet
};

// A layer in the memory of a GPU; all pointers are the GPU's. Passed to kernels by value.
struct DeviceLayer {
  int64_t rows = 0, cols = 0;
  int64_t tile_bytes = 0;
  const uint8_t* planes = nullptr;  // [tiles][tile_bytes]
  LevelKind level_kind = LevelKind::kLog8;
  bool pruned = false;
  int32_t level_rows = 0;
  int32_t segments = 0;
  const uint8_t* codes = nullptr;    // [tiles][level_rows][32]
  const float* levels = nullptr;     // [tiles][level_rows][32]
  const float* constants = nullptr;  // [tiles][segments][32] or null
  const float* log8 = nullptr;       // [256]: what a code is worth
  int32_t strips = 0, group_count = 0;
  StripGroup groups[kMaxGroups];
  const int32_t* source = nullptr;      // [strips][128]: original column or -1, see column_at()
  const float* column_scale = nullptr;  // [strips][128] in the same order, or null
  Schedule schedules[kScheduleCount];
  ScatteredLayer scattered;
  float unit = 1;  // a power of two: every weight without column scales is at most so large

  BILLM_HOST_DEVICE int64_t tiles() const { return (rows + kTileRows - 1) / kTileRows; }
};

// A number known to the compiler.
template <int Value>
struct Number {
  static constexpr int value = Value;
};

// Where the column of bit `bit` of octet `octet` (0..15) of a strip stands in its 128: bytes of one
// bit position and one line make a word, words of a line stand together, highest bit first.
BILLM_HOST_DEVICE inline int column_at(int octet, int bit) {
  return (octet / kLineOctets * 8 + (7 - bit)) * kLineOctets + octet % kLineOctets;
}

// The same for an octet that is counted 16 to a strip, among the columns of all strips.
BILLM_HOST_DEVICE inline int64_t place_in_strips(int octet, int bit) {
  return int64_t{octet / kStripOctets} * kStripColumns + column_at(octet % kStripOctets, bit);
}

BILLM_HOST_DEVICE inline int group_of_strip(const DeviceLayer& layer, int strip) {
  int group = 0;
  while (group + 1 < layer.group_count && strip >= layer.groups[group + 1].first_strip) ++group;
  return group;
}

// Offset in the tile of the 16 bytes that a lane loads of one stored plane of a strip; -1 if the
// strip has no such line.
BILLM_HOST_DEVICE inline int64_t lane_offset(const StripGroup& group, int strip, int plane,
                                             int lane) {
  const int line = (strip - group.first_strip) * kStripLines + (lane & 3);
  if (line >= group.lines) return -1;
  return group.offset + (int64_t{line} * group.stored + plane) * kLineBytes + (lane >> 2) * 16;
}

// Strips [c0, c1) are shared out among `parts` warps by the work in them: planes plus one for x.
struct StripRange {
  int32_t first = 0, last = 0;
};

BILLM_HOST_DEVICE inline int64_t work_before(const DeviceLayer& layer, int strip) {
  int64_t work = 0;
  for (int g = 0; g < layer.group_count; ++g) {
    const StripGroup& group = layer.groups[g];
    int inside = strip - group.first_strip;
    inside = inside < 0 ? 0 : inside > group.strips ? group.strips : inside;
    work += int64_t{inside} * (group.planes + 1);
  }
  return work;
}

// The first strip before which there is work for `wanted` or more.
BILLM_HOST_DEVICE inline int strip_at_work(const DeviceLayer& layer, int64_t wanted) {
  int64_t before = 0;
  for (int g = 0; g < layer.group_count; ++g) {
    const StripGroup& group = layer.groups[g];
    const int64_t each = group.planes + 1;
    if (wanted <= before + each * group.strips) {
      const int64_t inside = (wanted - before + each - 1) / each;
      return group.first_strip + static_cast<int>(inside);
    }
    before += each * group.strips;
  }
  return layer.strips;
}

BILLM_HOST_DEVICE inline StripRange strips_of_part(const DeviceLayer& layer, int c0, int c1,
                                                   int part, int parts) {
  const int64_t begin = work_before(layer, c0), work = work_before(layer, c1) - begin;
  return {strip_at_work(layer, begin + work * part / parts),
          strip_at_work(layer, begin + work * (part + 1) / parts)};
}

}  // namespace billm::kernels::cuda
