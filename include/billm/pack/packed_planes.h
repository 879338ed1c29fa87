// PackedPlanes: the bytes of a factor of region codes, layout "planes" (docs/format.md). Packing
// makes one; opening a packed checkpoint makes one over mapped memory; decoding is the same for
// both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "billm/codes/region_codes.h"

namespace billm {

// One plane: a tensor of the packed file. dtype is the safetensors name.
struct Plane {
  std::string name;   // "signs", "classes", ... (docs/format.md has them all)
  std::string dtype;  // "U8", "I8", "U16", "F16", "U32", "F32"
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;  // view: into `owned` or into a mapped file
};

struct PackedPlanes {
  RegionFormat shape;
  int index_bits = 0;         // scattered integers: 2..8 = width of a delta in the index; 0: bitmap
  std::vector<Plane> planes;  // in the order of docs/format.md, absent ones left out
  std::vector<std::vector<std::byte>> owned;  // storage of planes made by pack(); empty when mapped

  PackedPlanes() = default;
  PackedPlanes(PackedPlanes&&) = default;
  PackedPlanes& operator=(PackedPlanes&&) = default;
  PackedPlanes(const PackedPlanes&) = delete;  // planes may point into `owned`
  PackedPlanes& operator=(const PackedPlanes&) = delete;

  const Plane* find(const std::string& name) const;
  int64_t bytes() const;  // of all planes
};

// The planes of a layer's codes, which are checked first. The same codes give the same bytes
// everywhere, for any number of threads.
PackedPlanes pack(const RegionCodes& codes, int threads = 1);

// Checks that the planes are exactly those that `shape` asks for, with their dtypes, sizes and
// valid contents (ranks, class bytes, padding bits). `where` names file and module in the message.
// Throws Error{kBadInput}.
void check_packed(const PackedPlanes& packed, const std::string& where);

// Decodes rows [first_row, first_row + row_count) to fp32, row-major [row_count, cols] at `out`.
// The planes must have passed check_packed (or come from pack()). Pure and thread-safe.
void decode_rows(const PackedPlanes& packed, int64_t first_row, int64_t row_count, float* out);
// All rows, the same for any number of threads.
void decode_rows(const PackedPlanes& packed, int threads, float* out);

// All the codes back (inspect, learning, tests).
RegionCodes unpack(const PackedPlanes& packed);

// Bytes of a factor [rows, cols] that is coded as `like` is, with the same shares of salient
// columns and scattered integers: for estimates. For like's own size, bytes().
int64_t scaled_bytes(const PackedPlanes& like, int64_t rows, int64_t cols);

}  // namespace billm
