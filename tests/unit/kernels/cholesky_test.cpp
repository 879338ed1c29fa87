// factor_upper: H = R R^T against a plain loop, for every thread count and Highway target.
#include "kernels/cpu/cholesky.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "unit/kernels/tile_testing.h"

namespace billm::kernels {
namespace {

int64_t stride_of(int64_t n) { return (n + 7) / 8 * 8; }

// A A^T + I with random A [n, n + 3], [n][stride].
std::vector<double> random_spd(int64_t n, uint32_t seed) {
  const int64_t depth = n + 3, stride = stride_of(n);
  const std::vector<float> a = test::random_normal(n * depth, seed);
  std::vector<double> h(static_cast<size_t>(n * stride), 0.0);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      double sum = i == j ? 1.0 : 0.0;
      for (int64_t k = 0; k < depth; ++k) sum += double{a[i * depth + k]} * a[j * depth + k];
      h[i * stride + j] = h[j * stride + i] = sum;
    }
  }
  return h;
}

std::vector<double> plain_factor(const std::vector<double>& h, int64_t n) {
  const int64_t stride = stride_of(n);
  std::vector<double> r(h.size(), 0.0);
  for (int64_t j = n - 1; j >= 0; --j) {
    for (int64_t i = j; i >= 0; --i) {
      double sum = h[i * stride + j];
      for (int64_t k = j + 1; k < n; ++k) sum -= r[i * stride + k] * r[j * stride + k];
      r[i * stride + j] = i == j ? std::sqrt(sum) : sum / r[j * stride + j];
    }
  }
  return r;
}

constexpr int64_t kSizes[] = {1, 2, 63, 64, 65, 130, 200};

TEST(FactorUpper, EqualsAPlainLoop) {
  for (const int64_t n : kSizes) {
    SCOPED_TRACE(n);
    const int64_t stride = stride_of(n);
    const std::vector<double> h = random_spd(n, 5);
    const std::vector<double> expected = plain_factor(h, n);
    std::vector<double> r = h;
    ASSERT_TRUE(factor_upper(r.data(), n, stride, 1));
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        const double tolerance = 1e-11 * std::sqrt(h[i * stride + i]);
        ASSERT_NEAR(r[i * stride + j], expected[i * stride + j], j < i ? 0 : tolerance)
            << i << ", " << j;
      }
    }
  }
}

TEST(FactorUpper, SameBitsForThreadsAndTargets) {
  for (const int64_t n : kSizes) {
    const std::vector<double> h = random_spd(n, 6);
    std::vector<double> first = h;
    ASSERT_TRUE(factor_upper(first.data(), n, stride_of(n), 1));
    for_every_target([&](int64_t target) {
      for (const int threads : {1, 2, 3, 8}) {
        std::vector<double> r = h;
        ASSERT_TRUE(factor_upper(r.data(), n, stride_of(n), threads));
        for (int64_t i = 0; i < n; ++i) {
          ASSERT_EQ(0, std::memcmp(&r[i * stride_of(n)], &first[i * stride_of(n)],
                                   static_cast<size_t>(n) * sizeof(double)))
              << n << " row " << i << " threads " << threads << " target " << target;
        }
      }
    });
  }
}

TEST(FactorUpper, NotPositiveDefinite) {
  constexpr double kBad[] = {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(),
                             std::numeric_limits<double>::infinity()};
  for (const int64_t n : kSizes) {
    for (const int64_t at : {int64_t{0}, n / 2, n - 1}) {
      for (const double bad : kBad) {
        std::vector<double> h = random_spd(n, 7);
        h[at * stride_of(n) + at] = bad;
        EXPECT_FALSE(factor_upper(h.data(), n, stride_of(n), 2)) << n << ", " << at << ": " << bad;
      }
    }
  }
  std::vector<double> indefinite = {1, 2, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0};
  EXPECT_FALSE(factor_upper(indefinite.data(), 2, 8, 1));
}

}  // namespace
}  // namespace billm::kernels
