// The kernels of integer layers against plain loops in double, and the same bits on every target.
#include "kernels/cpu/integer_tiles.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/compare.h"
#include "unit/kernels/tile_testing.h"

namespace billm::kernels {
namespace {

constexpr int kWidths[] = {1, 3, 64, 130};

double value_of(const IntegerGrid& grid, int lane, double code) {
  return (code - grid.zero[lane]) * grid.step[lane];
}

TEST(IntegerTiles, GridError) {
  for (const int width : kWidths) {
    for (const int bits : {2, 3, 4, 8}) {
      const IntegerGrid grid = random_grid(bits, 3);
      const Tile w(test::random_normal(int64_t{width} * kTileRows, 1));
      std::vector<float> h = test::random_normal(width, 2);
      for (float& value : h) value *= value;
      Tile error(kTileRows);
      grid_error(grid, w.get(), h.data(), width, error.get());
      std::vector<float> expected;
      for (int lane = 0; lane < kTileRows; ++lane) {
        double sum = 0;
        for (int c = 0; c < width; ++c) {
          const double d = grid_distance(grid, lane, w.at(c, lane));
          sum += h[static_cast<size_t>(c)] * d * d;
        }
        expected.push_back(static_cast<float>(sum));
      }
      EXPECT_TRUE(test::close(error.span(), expected, {.absolute = 1e-6, .relative = 1e-4}));
    }
  }
}

struct Result {
  Tile code, delta;
};

Result code_tile(const Triangle& triangle, const std::vector<const IntegerGrid*>& grids,
                 const Tile& w) {
  Result result{Tile(static_cast<int64_t>(w.span().size())),
                Tile(static_cast<int64_t>(w.span().size()))};
  code_integers(triangle.factor(), grids.data(), w.get(), result.code.get(), result.delta.get());
  return result;
}

TEST(IntegerTiles, CodeIntegers) {
  const IntegerGrid two[] = {random_grid(2, 5), random_grid(4, 6)};
  for (const int width : kWidths) {
    const Triangle triangle(width, 7);
    const Tile w(test::random_normal(int64_t{width} * kTileRows, 8));
    std::vector<const IntegerGrid*> grids;
    for (int c = 0; c < width; ++c) grids.push_back(&two[c * 7 % 3 % 2]);
    const Result result = code_tile(triangle, grids, w);
    for (int lane = 0; lane < kTileRows; ++lane) {
      for (int c = 0; c < width; ++c) {
        const IntegerGrid& grid = *grids[static_cast<size_t>(c)];
        const float code = result.code.at(c, lane);
        ASSERT_TRUE(code >= 0 && code <= grid.last && code == std::floor(code));
        const double value = value_of(grid, lane, code);
        ASSERT_NEAR(result.delta.at(c, lane), w.at(c, lane) - value, 1e-5);
        double target = 0;
        for (int i = 0; i < c; ++i) target += result.delta.at(i, lane) * triangle.r(i, c);
        target = w.at(c, lane) + target / triangle.r(c, c);
        ASSERT_NEAR(std::fabs(target - value), grid_distance(grid, lane, target),
                    1e-4 * (1 + std::fabs(target)));
      }
    }
    for_every_target([&](int64_t target) {
      const Result other = code_tile(triangle, grids, w);
      EXPECT_TRUE(other.code.same_bits(result.code)) << "target " << target;
      EXPECT_TRUE(other.delta.same_bits(result.delta)) << "target " << target;
    });
  }
}

TEST(IntegerTiles, FarOutsideOfTheGrid) {
  const IntegerGrid grid = random_grid(2, 9);
  Tile w(2 * kTileRows);
  for (int lane = 0; lane < kTileRows; ++lane) {
    w[lane] = 1e30f;
    w[kTileRows + lane] = -1e30f;
  }
  const Triangle triangle(2, 10);
  Triangle diagonal = triangle;
  diagonal.columns[2] = 0;  // no feedback from column 0 to 1
  const Result result = code_tile(diagonal, {&grid, &grid}, w);
  for (int lane = 0; lane < kTileRows; ++lane) {
    const bool flat = grid.step[lane] == 0;
    EXPECT_EQ(result.code.at(0, lane), flat ? grid.zero[lane] : grid.last);
    EXPECT_EQ(result.code.at(1, lane), flat ? grid.zero[lane] : 0.0f);
  }
}

}  // namespace
}  // namespace billm::kernels
