// Kernels for layers whose weights are all integers (GPTQ), on the tiles of row_tiles.h.
#pragma once

#include "kernels/cpu/row_tiles.h"

namespace billm::kernels {

// error[lane] = sum_c h[c] * (w - q)^2, each weight rounded to the grid. w [width][64], h [width].
void grid_error(const IntegerGrid& grid, const float* w, const float* h, int64_t width,
                float* error);

// Column by column, each weight takes the code nearest to its target (code_with_feedback). grids
// [width]: the grid of each column. w [width][64] are the weights with the feedback of the earlier
// groups; code [width][64] gets the codes, delta [width][64] w - q.
void code_integers(const GroupFactor& factor, const IntegerGrid* const* grids, const float* w,
                   float* code, float* delta);

}  // namespace billm::kernels
