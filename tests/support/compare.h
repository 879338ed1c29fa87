// The one comparison of float arrays in tests. NaN and infinity never pass, an empty array never
// passes, and a failure names the worst index, both values there and the share of misses.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <span>
#include <string>

namespace billm::test {

// actual[i] is a hit if both values are finite and |actual - expected| <= absolute + relative *
// |expected|. The default demands equal values.
struct Tolerance {
  double absolute = 0;
  double relative = 0;
  double missing_share = 0;  // share of misses that is still accepted, in [0, 1]
};

struct Comparison {
  int64_t count = 0;
  int64_t misses = 0;
  int64_t worst_index = -1;  // of the largest error over tolerance; not finite counts as largest
  float worst_actual = 0, worst_expected = 0;
  std::string problem;  // sizes differ, nothing to compare, not finite, too many misses

  bool ok() const { return problem.empty(); }
  double miss_share() const { return count == 0 ? 1.0 : static_cast<double>(misses) / count; }
  std::string text() const;
};

Comparison compare(std::span<const float> actual, std::span<const float> expected,
                   const Tolerance& tolerance);

// EXPECT_TRUE(close(actual, expected, {...})) prints Comparison::text() on failure.
testing::AssertionResult close(std::span<const float> actual, std::span<const float> expected,
                               const Tolerance& tolerance = {});

// Root of the mean square: the scale to which an absolute tolerance is usually relative.
double root_mean_square(std::span<const float> values);

}  // namespace billm::test
