// See group_triangles.h.
#include "group_triangles.h"

#include <algorithm>

namespace billm {

std::vector<GroupTriangle> group_triangles(const std::vector<float>& factor, int64_t cols,
                                           int64_t block_size) {
  const int64_t groups = (cols + block_size - 1) / block_size;
  std::vector<GroupTriangle> triangles(static_cast<size_t>(groups));
  for (int64_t b = 0; b < groups; ++b) {
    const int64_t first = b * block_size;
    const int64_t width = std::min(block_size, cols - first);
    GroupTriangle& triangle = triangles[b];
    triangle.rows.assign(static_cast<size_t>(width * width), 0.0f);
    triangle.columns.assign(static_cast<size_t>(width * width), 0.0f);
    triangle.norm.assign(static_cast<size_t>(width), 0.0f);
    for (int64_t i = 0; i < width; ++i) {
      for (int64_t j = i; j < width; ++j) {
        const float r = factor[(first + i) * cols + first + j];
        triangle.rows[i * width + j] = r;
        triangle.columns[j * width + i] = r;
        triangle.norm[i] += r * r;
      }
    }
  }
  return triangles;
}

}  // namespace billm
