// Dense algebra of every instruction set against plain loops in double, and the same bytes at any
// thread count.
#include "kernels/cpu/dense.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "kernels/cpu/row_tiles.h"
#include "support/random_layer.h"

namespace billm::kernels {
namespace {

// Runs `body` with each of this machine's instruction sets.
template <typename Body>
void for_each_target(Body body) {
  std::set<std::string> seen;
  const int64_t targets = supported_targets();
  for (int bit = 0; bit < 63; ++bit) {
    const int64_t target = int64_t{1} << bit;
    if ((targets & target) == 0) continue;
    force_target(target);
    if (seen.insert(dense_target()).second) {
      SCOPED_TRACE(dense_target());
      body();
    }
    force_target(0);
  }
  EXPECT_EQ(seen.count("baseline"), 1u);  // every CPU has it
}

template <typename T>
std::vector<T> random_matrix(int64_t size, uint32_t seed) {
  const std::vector<float> values = test::random_normal(size, seed);
  return {values.begin(), values.end()};
}

// A A' + I / 10 with A [n, n + 3].
template <typename T>
std::vector<T> positive_definite(int64_t n, uint32_t seed) {
  const std::vector<T> a = random_matrix<T>(n * (n + 3), seed);
  std::vector<T> out(static_cast<size_t>(n * n));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = i == j ? 0.1 : 0;
      for (int64_t k = 0; k < n + 3; ++k) {
        sum += static_cast<double>(a[i * (n + 3) + k]) * a[j * (n + 3) + k];
      }
      out[i * n + j] = static_cast<T>(sum);
    }
  }
  return out;
}

constexpr int64_t kShapes[][3] = {{1, 1, 1},     {1, 40, 3},    {5, 1, 7},   {96, 96, 16},
                                  {97, 200, 64}, {200, 97, 65}, {33, 3, 300}};

template <typename T>
void check_products(double tolerance) {
  for (const auto& [m, n, k] : kShapes) {
    for (const Transposed which : {Transposed::kNone, Transposed::kLeft, Transposed::kRight}) {
      SCOPED_TRACE(std::to_string(m) + " x " + std::to_string(n) + " x " + std::to_string(k) +
                   ", transposed " + std::to_string(static_cast<int>(which)));
      const std::vector<T> a = random_matrix<T>(m * k, 1), b = random_matrix<T>(k * n, 2);
      std::vector<T> c(static_cast<size_t>(m * n), T(NAN)), again = c;
      multiply(which, m, n, k, a.data(), b.data(), c.data(), 1);
      for (int64_t i = 0; i < m; ++i) {
        for (int64_t j = 0; j < n; ++j) {
          double sum = 0;
          for (int64_t l = 0; l < k; ++l) {
            const double left = which == Transposed::kLeft ? a[l * m + i] : a[i * k + l];
            const double right = which == Transposed::kRight ? b[j * k + l] : b[l * n + j];
            sum += left * right;
          }
          ASSERT_NEAR(c[i * n + j], sum, tolerance * std::sqrt(static_cast<double>(k)));
        }
      }
      for (const int threads : {2, 3}) {
        multiply(which, m, n, k, a.data(), b.data(), again.data(), threads);
        ASSERT_EQ(again, c);
      }
    }
  }
}

template <typename T>
void check_solves(double tolerance) {
  for (const int64_t n : {1, 7, 64, 130}) {
    for (const int64_t count : {1, 100, 193}) {
      const std::vector<T> a = positive_definite<T>(n, 3);
      const std::vector<T> b = random_matrix<T>(count * n, 4);
      std::vector<T> factor = a, x = b;
      ASSERT_TRUE(solve_rows(n, count, factor.data(), x.data(), 1));
      for (int64_t row = 0; row < count; ++row) {
        for (int64_t i = 0; i < n; ++i) {
          double sum = 0, size = 0;
          for (int64_t j = 0; j < n; ++j) {
            sum += static_cast<double>(a[i * n + j]) * x[row * n + j];
            size += std::fabs(static_cast<double>(a[i * n + j]) * x[row * n + j]);
          }
          ASSERT_NEAR(sum, b[row * n + i], tolerance * (1 + size)) << n << ", " << count;
        }
      }
      for (const int threads : {2, 3}) {
        std::vector<T> again = b;
        factor = a;
        ASSERT_TRUE(solve_rows(n, count, factor.data(), again.data(), threads));
        ASSERT_EQ(again, x);
      }
    }
  }
}

constexpr double kTolerance = 2e-5;  // of the decompositions

void check_eigen() {
  for (const int64_t n : {1, 2, 33, 130}) {
    const std::vector<float> a = positive_definite<float>(n, 5);
    std::vector<float> v = a, values(static_cast<size_t>(n));
    ASSERT_TRUE(eigen_symmetric(n, v.data(), values.data()));
    const double largest = values[n - 1];
    for (int64_t i = 0; i < n; ++i) {
      ASSERT_LE(values[std::max<int64_t>(i - 1, 0)], values[i]);
      for (int64_t j = 0; j < n; ++j) {
        double rebuilt = 0, dot = 0;
        for (int64_t k = 0; k < n; ++k) {
          rebuilt += static_cast<double>(v[i * n + k]) * values[k] * v[j * n + k];
          dot += static_cast<double>(v[k * n + i]) * v[k * n + j];
        }
        ASSERT_NEAR(rebuilt, a[i * n + j], kTolerance * largest);
        ASSERT_NEAR(dot, i == j ? 1 : 0, kTolerance);
      }
    }
  }
}

void check_tridiagonal() {
  for (const int64_t n : {1, 2, 3, 33, 130}) {
    const std::vector<float> a = positive_definite<float>(n, 6);
    std::vector<float> q = a, diagonal(static_cast<size_t>(n)), beside(static_cast<size_t>(n));
    ASSERT_TRUE(tridiagonal_symmetric(n, q.data(), diagonal.data(), beside.data()));
    const double largest = *std::max_element(diagonal.begin(), diagonal.end());
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double rebuilt = 0, dot = 0;
        for (int64_t k = 0; k < n; ++k) {
          double row = static_cast<double>(q[i * n + k]) * diagonal[k];  // of Q T
          if (k > 0) row += static_cast<double>(q[i * n + k - 1]) * beside[k - 1];
          if (k + 1 < n) row += static_cast<double>(q[i * n + k + 1]) * beside[k];
          rebuilt += row * q[j * n + k];
          dot += static_cast<double>(q[k * n + i]) * q[k * n + j];
        }
        ASSERT_NEAR(rebuilt, a[i * n + j], kTolerance * largest);
        ASSERT_NEAR(dot, i == j ? 1 : 0, kTolerance);
      }
    }
  }
}

TEST(Dense, Products) {
  for_each_target([] {
    check_products<float>(1e-5);
    check_products<double>(1e-13);
  });
}

TEST(Dense, SolvesOfRows) {
  for_each_target([] {
    check_solves<float>(2e-5);
    check_solves<double>(1e-13);
  });
}

TEST(Dense, EigenvaluesAndVectors) { for_each_target(check_eigen); }

TEST(Dense, TridiagonalForm) { for_each_target(check_tridiagonal); }

TEST(Dense, SaysWhatCannotBeSolved) {
  for_each_target([] {
    float indefinite[] = {1, 0, 0, -1}, row[] = {3, 4};
    EXPECT_FALSE(solve_rows(2, 1, indefinite, row, 1));
    EXPECT_EQ(row[0], 3);
    EXPECT_EQ(row[1], 4);
    float values[2];
    float broken[] = {NAN, 1, 1, NAN};
    EXPECT_FALSE(eigen_symmetric(2, broken, values));
    float also_broken[] = {NAN, 1, 1, NAN};
    EXPECT_FALSE(tridiagonal_symmetric(2, also_broken, values, row));
  });
}

}  // namespace
}  // namespace billm::kernels
