// make_hessian: scaling, damping, dead columns, retries, and its factor.
#include "billm/quantize/hessian.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "billm/base/error.h"
#include "support/random_layer.h"

namespace billm {
namespace {

CalibrationStats stats_of(std::vector<float> xtx, int64_t tokens) {
  CalibrationStats stats;
  stats.width = static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(xtx.size()))));
  stats.tokens = tokens;
  stats.xtx = std::move(xtx);
  return stats;
}

// The largest |R R^T - (H + lambda I)|, dead columns counting as 1, over the mean diagonal.
double factor_error(const Hessian& h) {
  double worst = 0, mean = 0;
  for (int64_t i = 0; i < h.width; ++i) {
    for (int64_t j = 0; j < h.width; ++j) {
      double sum = 0;
      for (int64_t k = std::max(i, j); k < h.width; ++k) {
        sum += double{h.factor[i * h.width + k]} * h.factor[j * h.width + k];
      }
      double expected = h.matrix[i * h.width + j];
      if (i == j) expected += h.lambda + (h.dead[i] != 0 ? 1.0 : 0.0);
      if (i == j) mean += expected / static_cast<double>(h.width);
      worst = std::max(worst, std::fabs(sum - expected));
    }
  }
  return worst / mean;
}

TEST(Hessian, ScaleDampingAndFactor) {
  for (const int64_t width : {1, 5, 64, 100}) {
    SCOPED_TRACE(width);
    const CalibrationStats stats = test::correlated_stats(width, 200, 3);
    const Hessian h = make_hessian(stats, true, 0.01, 2);
    double mean = 0;
    for (int64_t i = 0; i < width * width; ++i) {
      ASSERT_EQ(h.matrix[i], 2.0f / 200.0f * stats.xtx[i]);
    }
    for (int64_t i = 0; i < width; ++i) {
      mean += double{h.matrix[i * width + i]} / static_cast<double>(width);
      ASSERT_EQ(h.diagonal[i], h.factor[i * width + i]);
      ASSERT_GT(h.diagonal[i], 0.0f);
      ASSERT_EQ(h.dead[i], 0);
      for (int64_t j = 0; j < i; ++j) ASSERT_EQ(h.factor[i * width + j], 0.0f);
    }
    EXPECT_NEAR(h.lambda, 0.01 * mean, 1e-9 * mean);
    EXPECT_EQ(h.retries, 0);
    EXPECT_LT(factor_error(h), 1e-5);
    for (const int threads : {1, 3}) {
      EXPECT_EQ(make_hessian(stats, true, 0.01, threads).factor, h.factor);
    }
    const Hessian without = make_hessian(stats, false, 0.01, 1);
    EXPECT_TRUE(without.factor.empty());
    EXPECT_EQ(without.matrix, h.matrix);
  }
}

TEST(Hessian, PermutedFactor) {
  for (const int64_t width : {1, 5, 70}) {
    CalibrationStats stats = test::correlated_stats(width, 200, 4);
    for (int64_t i = 0; i < width; ++i) {  // a dead column
      stats.xtx[i * width + width / 2] = stats.xtx[width / 2 * width + i] = 0;
    }
    const Hessian h = make_hessian(stats, true, 0.01, 1);
    std::vector<int64_t> order(static_cast<size_t>(width));
    for (int64_t i = 0; i < width; ++i) order[i] = i;
    EXPECT_EQ(permuted_factor(h, order, 2), h.factor);
    std::reverse(order.begin(), order.end());
    if (width > 1) std::swap(order[0], order[1]);
    Hessian permuted = h;  // as if the columns had come in that order
    permuted.factor = permuted_factor(h, order, 1);
    for (int64_t i = 0; i < width; ++i) {
      permuted.dead[i] = h.dead[order[i]];
      for (int64_t j = 0; j < width; ++j) {
        permuted.matrix[i * width + j] = h.matrix[order[i] * width + order[j]];
      }
    }
    EXPECT_LT(factor_error(permuted), 1e-5);
    EXPECT_EQ(permuted_factor(h, order, 3), permuted.factor);
  }
  Hessian indefinite = make_hessian(stats_of({1, 2.5f, 2.5f, 1}, 2), true, 0.01, 1);
  indefinite.lambda = 0.01;
  EXPECT_THROW(permuted_factor(indefinite, {1, 0}, 1), Error);
}

TEST(Hessian, DeadColumns) {
  // 2 / tokens = 1. Column 1 never saw an input.
  const Hessian h = make_hessian(stats_of({4, 0, 1, 0, 0, 0, 1, 0, 2}, 2), true, 0.01, 1);
  EXPECT_EQ(h.dead, (std::vector<uint8_t>{0, 1, 0}));
  EXPECT_EQ(h.matrix[4], 0.0f);  // the matrix is the undamped one
  EXPECT_DOUBLE_EQ(h.lambda, 0.01 * (4 + 1 + 2) / 3);
  EXPECT_FLOAT_EQ(h.diagonal[1], static_cast<float>(std::sqrt(1 + h.lambda)));
  EXPECT_LT(factor_error(h), 1e-6);
  const Hessian all_dead = make_hessian(stats_of({0, 0, 0, 0}, 7), true, 0.01, 1);
  EXPECT_EQ(all_dead.dead, (std::vector<uint8_t>{1, 1}));
  EXPECT_LT(factor_error(all_dead), 1e-6);
}

TEST(Hessian, RetriesWithTenfoldDamping) {
  // Eigenvalues 3.5 and -1.5: lambda 0.01, 0.1 and 1 fail, 10 does not.
  const Hessian h = make_hessian(stats_of({1, 2.5f, 2.5f, 1}, 2), true, 0.01, 1);
  EXPECT_EQ(h.retries, 3);
  EXPECT_NEAR(h.lambda, 10, 1e-12);
  EXPECT_LT(factor_error(h), 1e-6);
  // A rank-deficient matrix needs no more than the damping.
  EXPECT_EQ(make_hessian(stats_of({1, 1, 1, 1}, 2), true, 0.01, 1).retries, 0);
}

void expect_failure(const CalibrationStats& stats, const std::string& part) {
  try {
    make_hessian(stats, true, 0.01, 1);
    ADD_FAILURE() << "no error, expected one with: " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kFailure);
    EXPECT_NE(error.message().find(part), std::string::npos) << error.message();
    EXPECT_EQ(error.message().find('\n'), std::string::npos) << error.message();
  }
}

TEST(Hessian, Failures) {
  expect_failure(stats_of({1, 1e7f, 1e7f, 1}, 2), "even with lambda = 1000");  // five retries
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  expect_failure(stats_of({1, 0, 0, kNan}, 2), "not finite in column 1");
  expect_failure(stats_of({kInf, 0, 0, 1}, 2), "not finite in column 0");
  expect_failure(stats_of({-1, 0, 0, 1}, 2), "column 0");
  expect_failure(stats_of({1, kNan, kNan, 1}, 2), "");
  expect_failure(stats_of({1, 0, 0, 1}, 0), "empty");
  CalibrationStats wrong = stats_of({1, 0, 0, 1}, 2);
  wrong.width = 3;
  expect_failure(wrong, "wrong size");
}

}  // namespace
}  // namespace billm
