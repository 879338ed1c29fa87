// PackedTrellis: the bytes of a factor coded on a trellis, layout "trellis" (docs/format.md).
// Packing makes one; opening a packed checkpoint makes one over mapped memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "billm/codes/trellis.h"
#include "billm/pack/packed_planes.h"

namespace billm {

struct PackedTrellis {
  TrellisFormat format;
  std::vector<Plane> planes;                  // codes0, codes1, ..., scales
  std::vector<std::vector<std::byte>> owned;  // storage of planes made by pack(); empty when mapped

  PackedTrellis() = default;
  PackedTrellis(PackedTrellis&&) = default;
  PackedTrellis& operator=(PackedTrellis&&) = default;
  PackedTrellis(const PackedTrellis&) = delete;  // planes may point into `owned`
  PackedTrellis& operator=(const PackedTrellis&) = delete;

  // By role, whatever their order in `planes`; check_packed() found them.
  const std::byte* codes(int plane) const;  // [groups, group_bytes(plane)]
  std::vector<float> row_scales() const;    // [rows]
};

// The planes of a factor's codes, which are checked first. The same bytes for any number of
// threads.
PackedTrellis pack(const TrellisCodes& codes, int threads = 1);

// Checks that the planes are exactly those that the format asks for, with their dtypes, sizes,
// padding and scales. Throws Error{kBadInput} starting with `where`.
void check_packed(const PackedTrellis& packed, const std::string& where);

// W [rows, cols] as fp32 at `out`. The planes must have passed check_packed (or come from pack()).
void decode(const PackedTrellis& packed, int threads, float* out);

// All the codes back.
TrellisCodes unpack(const PackedTrellis& packed, int threads = 1);

}  // namespace billm
