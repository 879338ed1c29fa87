// Affine grids of integer weights: code c of `bits` bits is worth (c - zero) * step, step in fp16.
#pragma once

#include <cstdint>

#include "kernels/cpu/row_tiles.h"

namespace billm {

struct AffineGrid {
  float step = 0;
  uint8_t zero = 0;
};

// The grid that spans [low, high], widened to hold 0 (asymmetric min/max, as GPTQ's code).
AffineGrid affine_grid(float low, float high, int bits);

// The code nearest to w: the arithmetic of the kernels' integers.
uint8_t nearest_code(const AffineGrid& grid, int bits, float w);

void set_lane(const AffineGrid& grid, int lane, kernels::IntegerGrid* grids);

}  // namespace billm
