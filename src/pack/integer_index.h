// Where the scattered integers of a layer are (PB-LLM, docs/format.md): one bit per weight, or the
// gaps between them, whichever takes fewer bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "billm/codes/region_codes.h"

namespace billm {

inline constexpr int kMinDelta = 2, kMaxDelta = 8;  // bits of a gap

struct IntegerIndex {
  int bits = 0;                   // of a gap; 0: bitmap
  std::vector<std::byte> bytes;   // plane `index`
  std::vector<int64_t> integers;  // [rows]
  std::vector<int64_t> entries;   // [rows]: gaps, with the skips; empty for a bitmap
};

// The smallest index of a layer's integer weights; of equal ones the bitmap, then fewer bits.
IntegerIndex make_integer_index(const RegionCodes& linear, int threads);

}  // namespace billm
