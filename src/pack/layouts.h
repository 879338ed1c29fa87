// The table of packed layouts: one codec file each, one row each.
#pragma once

#include <span>
#include <string>

#include "billm/pack/packed_linear.h"

namespace billm {

struct Layout {
  const char* name;  // stored in the file: do not rename
  PackedLinear (*pack)(const RegionCodes& linear, int threads);
  void (*check)(const PackedLinear& packed, const std::string& where);
  void (*decode_rows)(const PackedLinear& packed, int64_t first_row, int64_t row_count, float* out);
  RegionCodes (*unpack)(const PackedLinear& packed);
  int64_t (*scaled_bytes)(const PackedLinear& like, int64_t rows, int64_t cols);
};

std::span<const Layout> layouts();

// planes_pack.cpp, planes_check.cpp, planes.cpp
PackedLinear pack_planes(const RegionCodes& linear, int threads);
void check_planes(const PackedLinear& packed, const std::string& where);
void decode_planes(const PackedLinear& packed, int64_t first_row, int64_t row_count, float* out);
RegionCodes unpack_planes(const PackedLinear& packed);
int64_t scaled_planes_bytes(const PackedLinear& like, int64_t rows, int64_t cols);

}  // namespace billm
