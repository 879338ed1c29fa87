// The triangle of each quantization group of a factor R, as the tile kernels want it.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cpu/row_tiles.h"

namespace billm {

struct GroupTriangle {
  std::vector<float> rows, columns, norm;
  kernels::GroupFactor factor() const {
    return {static_cast<int>(norm.size()), rows.data(), columns.data(), norm.data()};
  }
};

// factor: R [cols, cols]. One triangle per group of `block_size` columns; the last may be narrower.
std::vector<GroupTriangle> group_triangles(const std::vector<float>& factor, int64_t cols,
                                           int64_t block_size);

}  // namespace billm
