// Affine grids: what they span, and that codes are the nearest ones.
#include "src/quantize/integer_grid.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "billm/base/half.h"
#include "support/random_layer.h"

namespace billm {
namespace {

double value_of(const AffineGrid& grid, int code) {
  return static_cast<double>(code - grid.zero) * grid.step;
}

TEST(IntegerGrid, SpansItsRangeAndZero) {
  test::Random random(1);
  for (int i = 0; i < 500; ++i) {
    const int bits = 2 + i % 7, last = (1 << bits) - 1;
    const float a = random.normal(), b = random.normal();
    const float low = std::min(a, b), high = std::max(a, b);
    const AffineGrid grid = affine_grid(low, high, bits);
    EXPECT_EQ(round_to_half(grid.step), grid.step);
    ASSERT_LE(grid.zero, last);
    // The ends are at most half a step (zero is rounded) and the rounding of the step away.
    const double slack = grid.step * (0.5 + last * 0x1p-11);
    EXPECT_NEAR(value_of(grid, 0), std::min(low, 0.0f), slack);
    EXPECT_NEAR(value_of(grid, last), std::max(high, 0.0f), slack);
    for (int k = 0; k < 20; ++k) {
      const float w = 1.5f * random.normal();
      double best = INFINITY;
      for (int code = 0; code <= last; ++code) {
        best = std::min(best, std::fabs(w - value_of(grid, code)));
      }
      EXPECT_NEAR(std::fabs(w - value_of(grid, nearest_code(grid, bits, w))), best, 1e-6);
    }
  }
}

TEST(IntegerGrid, Degenerate) {
  const AffineGrid none = affine_grid(0, 0, 2);
  EXPECT_EQ(none.step, 0.0f);
  EXPECT_EQ(none.zero, 0);
  EXPECT_EQ(nearest_code(none, 2, 1.0f), 0);
  const AffineGrid positive = affine_grid(3, 6, 2);  // 0 belongs to it
  EXPECT_EQ(positive.zero, 0);
  EXPECT_EQ(positive.step, 2.0f);
  const AffineGrid negative = affine_grid(-6, -3, 2);
  EXPECT_EQ(negative.zero, 3);
  EXPECT_EQ(nearest_code(negative, 2, -6.0f), 0);
  EXPECT_EQ(affine_grid(-1e-30f, 1e-30f, 4).step, 0.0f);
  EXPECT_EQ(affine_grid(-1e30f, 1e30f, 4).step, 65504.0f);
}

}  // namespace
}  // namespace billm
