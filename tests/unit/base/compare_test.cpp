// The comparison helper itself: a helper that lets NaN pass makes every other test worthless.
#include "support/compare.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace billm::test {
namespace {

using Floats = std::vector<float>;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

TEST(Compare, EqualValuesPass) {
  EXPECT_TRUE(compare(Floats{1, -2, 0}, Floats{1, -2, 0}, {}).ok());
  EXPECT_FALSE(compare(Floats{1}, Floats{std::nextafter(1.0f, 2.0f)}, {}).ok());
}

TEST(Compare, NotFiniteNeverPasses) {
  const Tolerance loose{.absolute = 1e30, .relative = 1e30, .missing_share = 1};
  EXPECT_FALSE(compare(Floats{1, kNan}, Floats{1, 1}, loose).ok());
  EXPECT_FALSE(compare(Floats{1, kNan}, Floats{1, kNan}, loose).ok());
  EXPECT_FALSE(compare(Floats{1, 1}, Floats{1, kNan}, loose).ok());
  EXPECT_FALSE(compare(Floats{kInf}, Floats{kInf}, loose).ok());
  EXPECT_FALSE(compare(Floats{-kInf}, Floats{kInf}, loose).ok());
  const Comparison result = compare(Floats{9, kNan, 9}, Floats{1, 1, 1}, {});
  EXPECT_EQ(result.worst_index, 1);
  EXPECT_NE(result.text().find("not finite"), std::string::npos);
}

TEST(Compare, NothingAndOtherSizesNeverPass) {
  EXPECT_FALSE(compare(Floats{}, Floats{}, {}).ok());
  EXPECT_FALSE(compare(Floats{1}, Floats{1, 2}, {}).ok());
  EXPECT_FALSE(compare(Floats{1, 2}, Floats{1}, {.missing_share = 1}).ok());
}

TEST(Compare, Tolerances) {
  EXPECT_TRUE(compare(Floats{1.09f, 0}, Floats{1, 0.09f}, {.absolute = 0.1}).ok());
  EXPECT_FALSE(compare(Floats{1.11f}, Floats{1}, {.absolute = 0.1}).ok());
  EXPECT_TRUE(compare(Floats{-109}, Floats{-100}, {.relative = 0.1}).ok());
  EXPECT_FALSE(compare(Floats{0.01f}, Floats{0}, {.relative = 0.1}).ok());
}

TEST(Compare, ReportsWorstAndShare) {
  const Comparison result =
      compare(Floats{1, 2, 7, 4}, Floats{1, 2.5f, 3, 4}, {.missing_share = 0.25});
  EXPECT_EQ(result.count, 4);
  EXPECT_EQ(result.misses, 2);
  EXPECT_DOUBLE_EQ(result.miss_share(), 0.5);
  EXPECT_EQ(result.worst_index, 2);
  EXPECT_EQ(result.worst_actual, 7);
  EXPECT_EQ(result.worst_expected, 3);
  EXPECT_FALSE(result.ok());
  EXPECT_EQ(result.text(),
            "too many misses: 2 of 4 values missed (50 %), worst at index 2: actual 7, expected 3");
  EXPECT_TRUE(compare(Floats{1, 2, 7, 4}, Floats{1, 2.5f, 3, 4}, {.missing_share = 0.5}).ok());
}

TEST(Compare, RootMeanSquare) {
  EXPECT_DOUBLE_EQ(root_mean_square(Floats{3, -4}), std::sqrt(12.5));
  EXPECT_EQ(root_mean_square(Floats{}), 0);
}

}  // namespace
}  // namespace billm::test
