// PackedLinear: the bytes of one quantized linear layer (docs/format.md). Packing a RegionCodes
// makes one; opening a packed checkpoint makes one over mapped memory; decoding is the same for
// both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "billm/codes/region_codes.h"

namespace billm {

// One plane: a tensor `<module>.<name>` of the packed file. dtype is the safetensors name.
struct Plane {
  std::string name;   // "signs", "classes", ... (docs/format.md has them all)
  std::string dtype;  // "U8", "I8", "U16", "F16", "U32", "F32"
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;  // view: into `owned` or into a mapped file
};

struct PackedLinear {
  std::string layout;  // row of the layout table
  RegionFormat shape;
  int index_bits = 0;         // scattered integers: 2..8 = width of a delta in the index; 0: bitmap
  std::vector<Plane> planes;  // in the order of docs/format.md, absent ones left out
  std::vector<std::vector<std::byte>> owned;  // storage of planes made by pack(); empty when mapped

  PackedLinear() = default;
  PackedLinear(PackedLinear&&) = default;
  PackedLinear& operator=(PackedLinear&&) = default;
  PackedLinear(const PackedLinear&) = delete;  // planes may point into `owned`
  PackedLinear& operator=(const PackedLinear&) = delete;

  const Plane* find(const std::string& name) const;
  int64_t bytes() const;       // of all planes
  double stored_bits() const;  // 8 * bytes / (rows * cols)
};

// The planes of a layer. The same codes give the same bytes everywhere, for any number of threads.
PackedLinear pack(const RegionCodes& linear, int threads = 1);

// Checks that the planes are exactly those that `shape` asks for, with their dtypes, sizes and
// valid contents (ranks, class bytes, padding bits). `where` names file and module in the message.
// Throws Error{kBadInput}.
void check_packed(const PackedLinear& packed, const std::string& where);

// Decodes rows [first_row, first_row + row_count) to fp32, row-major [row_count, cols] at `out`.
// The planes must have passed check_packed (or come from pack()). Pure and thread-safe.
void decode_rows(const PackedLinear& packed, int64_t first_row, int64_t row_count, float* out);

// All the codes back (inspect, tests).
RegionCodes unpack(const PackedLinear& packed);

// Bytes of a layer [rows, cols] that is coded as `like` is, with the same shares of salient columns
// and scattered integers: for estimates. For like's own size, bytes().
int64_t scaled_bytes(const PackedLinear& like, int64_t rows, int64_t cols);

// The JSON text that stands in the shard's metadata under the module's name, and its parser, which
// gives a PackedLinear without planes. Throws Error{kBadInput}.
std::string describe(const PackedLinear& packed);
PackedLinear parse_description(const std::string& text, const std::string& where);

}  // namespace billm
