// Comparison of float arrays: see tests/support/compare.h.
#include "support/compare.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

namespace billm::test {

std::string Comparison::text() const {
  std::ostringstream out;
  out << (ok() ? "equal within tolerance" : problem) << ": " << misses << " of " << count
      << " values missed (" << 100 * miss_share() << " %)";
  if (worst_index >= 0) {
    out.precision(9);
    out << ", worst at index " << worst_index << ": actual " << worst_actual << ", expected "
        << worst_expected;
  }
  return out.str();
}

Comparison compare(std::span<const float> actual, std::span<const float> expected,
                   const Tolerance& tolerance) {
  Comparison result;
  result.count = static_cast<int64_t>(std::min(actual.size(), expected.size()));
  double worst = -1;
  bool finite = true;
  for (size_t i = 0; i < static_cast<size_t>(result.count); ++i) {
    const double a = actual[i], e = expected[i];
    double excess = std::numeric_limits<double>::infinity();
    if (std::isfinite(a) && std::isfinite(e)) {
      const double allowed = tolerance.absolute + tolerance.relative * std::abs(e);
      // How far beyond what is allowed: comparable between large and small values.
      excess = std::abs(a - e) - allowed;
    } else {
      finite = false;
    }
    if (!(excess <= 0)) ++result.misses;
    if (result.worst_index < 0 || excess > worst) {
      worst = excess;
      result.worst_index = static_cast<int64_t>(i);
      result.worst_actual = actual[i];
      result.worst_expected = expected[i];
    }
  }
  if (actual.size() != expected.size()) {
    result.problem = "sizes differ (" + std::to_string(actual.size()) + " and " +
                     std::to_string(expected.size()) + ")";
  } else if (actual.empty()) {
    result.problem = "nothing to compare";
  } else if (!finite) {
    result.problem = "not finite";
  } else if (result.miss_share() > tolerance.missing_share) {
    result.problem = "too many misses";
  }
  return result;
}

testing::AssertionResult close(std::span<const float> actual, std::span<const float> expected,
                               const Tolerance& tolerance) {
  const Comparison result = compare(actual, expected, tolerance);
  if (result.ok()) return testing::AssertionSuccess() << result.text();
  return testing::AssertionFailure() << result.text();
}

double root_mean_square(std::span<const float> values) {
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value) * value;
  return values.empty() ? 0.0 : std::sqrt(sum / static_cast<double>(values.size()));
}

}  // namespace billm::test
