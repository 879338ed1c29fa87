// Corrected targets against the formula solved by plain elimination in double.
#include "billm/quantize/targets.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <utility>

#include "billm/base/error.h"
#include "support/compare.h"
#include "support/random_layer.h"

namespace billm {
namespace {

constexpr int64_t kCols = 37, kTokens = 120;

// X, Xo and D of correlated inputs, and their sums.
struct Streams {
  explicit Streams(int64_t rows, uint32_t seed = 5)
      : present(test::random_normal(kTokens * kCols, seed)),
        original(present),
        behind(test::random_normal(kTokens * rows, seed + 1, 0.3f)) {
    const std::vector<float> noise = test::random_normal(kTokens * kCols, seed + 2, 0.4f);
    for (size_t i = 0; i < original.size(); ++i) {
      if (i % kCols != 0) present[i] += present[i - 1];
      original[i] = present[i] + noise[i];
    }
    stats.width = kCols;
    stats.tokens = kTokens;
    stats.xtx = product(present, kCols);
    stats.cross = product(original, kCols);
    if (rows > 0) stats.drift = product(behind, rows);
  }
  // left^T X
  std::vector<float> product(const std::vector<float>& left, int64_t height) const {
    std::vector<float> sums;
    for (int64_t i = 0; i < height; ++i) {
      for (int64_t j = 0; j < kCols; ++j) {
        double sum = 0;
        for (int64_t t = 0; t < kTokens; ++t) {
          sum += double{left[t * height + i]} * present[t * kCols + j];
        }
        sums.push_back(static_cast<float>(sum));
      }
    }
    return sums;
  }
  std::vector<float> present, original, behind;
  CalibrationStats stats;
};

MethodConfig config_of(double alpha, double rho, double ridge) {
  MethodConfig config("arb");
  config.targets = Targets::kCorrected;
  config.target_share = alpha;
  config.stream_share = rho;
  config.target_ridge = ridge;
  return config;
}

// x with x a = b: Gauss-Jordan elimination with pivots. a [n, n] symmetric.
std::vector<double> solve(std::vector<double> a, std::vector<double> b) {
  const auto n = static_cast<int64_t>(b.size());
  for (int64_t i = 0; i < n; ++i) {
    int64_t pivot = i;
    for (int64_t r = i; r < n; ++r) {
      if (std::fabs(a[r * n + i]) > std::fabs(a[pivot * n + i])) pivot = r;
    }
    for (int64_t c = 0; c < n; ++c) std::swap(a[i * n + c], a[pivot * n + c]);
    std::swap(b[i], b[pivot]);
    for (int64_t r = 0; r < n; ++r) {
      if (r == i) continue;
      const double factor = a[r * n + i] / a[i * n + i];
      for (int64_t c = i; c < n; ++c) a[r * n + c] -= factor * a[i * n + c];
      b[r] -= factor * b[i];
    }
  }
  for (int64_t i = 0; i < n; ++i) b[i] /= a[i * n + i];
  return b;
}

// The formula, row by row.
std::vector<float> expected(const std::vector<float>& weight, int64_t rows,
                            const CalibrationStats& stats, const MethodConfig& config) {
  double ridge = 0;
  for (int64_t i = 0; i < kCols; ++i) ridge += stats.xtx[i * kCols + i];
  ridge *= config.target_ridge / kCols;
  std::vector<double> h(stats.xtx.begin(), stats.xtx.end());
  for (int64_t i = 0; i < kCols; ++i) h[i * kCols + i] += ridge;
  std::vector<float> result;
  for (int64_t row = 0; row < rows; ++row) {
    const float* w = weight.data() + row * kCols;
    std::vector<double> right(kCols);
    for (int64_t j = 0; j < kCols; ++j) {
      double sum = ridge * w[j];
      for (int64_t i = 0; i < kCols; ++i) sum += double{w[i]} * stats.cross[i * kCols + j];
      right[j] = config.target_share * sum;
      if (!stats.drift.empty()) right[j] += config.stream_share * stats.drift[row * kCols + j];
    }
    const std::vector<double> solved = solve(h, right);
    for (int64_t j = 0; j < kCols; ++j) {
      result.push_back(static_cast<float>((1 - config.target_share) * w[j] + solved[j]));
    }
  }
  return result;
}

TEST(CorrectedTargets, AreTheFormula) {
  for (const double alpha : {0.0, 0.5, 1.0}) {
    for (const double rho : {0.0, 0.5}) {
      for (const bool drift : {false, true}) {
        constexpr int64_t kRows = 11;
        const Streams streams(drift ? kRows : 0);
        const std::vector<float> weight = test::random_normal(kRows * kCols, 3);
        const MethodConfig config = config_of(alpha, rho, 0.01);
        const WeightView views[] = {{weight.data(), kRows, kCols}};
        const auto targets = corrected_targets(views, streams.stats, config, 2);
        EXPECT_TRUE(test::close(targets.at(0), expected(weight, kRows, streams.stats, config),
                                {.absolute = 1e-5, .relative = 1e-5}))
            << alpha << " " << rho << " " << drift;
      }
    }
  }
}

// Full shares and no ridge: the least squares of the original's outputs and of what is behind.
TEST(CorrectedTargets, LeaveNothingThatTheInputsExplain) {
  constexpr int64_t kRows = 5;
  const Streams streams(kRows);
  const std::vector<float> weight = test::random_normal(kRows * kCols, 3);
  const WeightView views[] = {{weight.data(), kRows, kCols}};
  const auto target = corrected_targets(views, streams.stats, config_of(1, 1, 1e-8), 1).at(0);
  // The residual Xo W' + D - X T' is orthogonal to X.
  for (int64_t row = 0; row < kRows; ++row) {
    std::vector<double> residual(kTokens, 0.0);
    for (int64_t t = 0; t < kTokens; ++t) {
      residual[t] = streams.behind[t * kRows + row];
      for (int64_t j = 0; j < kCols; ++j) {
        residual[t] += double{streams.original[t * kCols + j]} * weight[row * kCols + j] -
                       double{streams.present[t * kCols + j]} * target[row * kCols + j];
      }
    }
    for (int64_t j = 0; j < kCols; ++j) {
      double product = 0;
      for (int64_t t = 0; t < kTokens; ++t) product += residual[t] * streams.present[t * kCols + j];
      EXPECT_NEAR(product, 0, 0.02) << row << " " << j;
    }
  }
}

TEST(CorrectedTargets, AreTheWeightsWhereNothingWasLost) {
  Streams streams(0);
  streams.stats.cross = streams.stats.xtx;
  const std::vector<float> weight = test::random_normal(4 * kCols, 3);
  const WeightView views[] = {{weight.data(), 4, kCols}};
  EXPECT_TRUE(test::close(corrected_targets(views, streams.stats, config_of(1, 1, 0.01), 1).at(0),
                          weight, {.absolute = 1e-6, .relative = 1e-6}));
  EXPECT_EQ(corrected_targets(views, streams.stats, config_of(0, 0, 0.01), 1).at(0), weight);
}

TEST(CorrectedTargets, AreTheSameAloneTogetherAndWithAnyThreads) {
  const Streams streams(0);
  const std::vector<float> one = test::random_normal(4 * kCols, 3),
                           two = test::random_normal(9 * kCols, 4);
  const MethodConfig config = config_of(0.5, 0.5, 0.01);
  const WeightView both[] = {{one.data(), 4, kCols}, {two.data(), 9, kCols}};
  const auto together = corrected_targets(both, streams.stats, config, 1);
  EXPECT_EQ(corrected_targets(both, streams.stats, config, 3), together);
  EXPECT_TRUE(
      test::close(corrected_targets(std::span(both).subspan(1), streams.stats, config, 1).at(0),
                  together.at(1), {.absolute = 1e-6, .relative = 1e-6}));
}

TEST(CorrectedTargets, RefuseSumsThatAreNotThere) {
  const std::vector<float> weight = test::random_normal(4 * kCols, 3);
  const WeightView views[] = {{weight.data(), 4, kCols}};
  const MethodConfig config = config_of(0.5, 0.5, 0.01);
  Streams no_cross(0), other_drift(3), not_finite(0), indefinite(0);
  no_cross.stats.cross.clear();
  not_finite.stats.cross[5] = std::numeric_limits<float>::quiet_NaN();
  for (float& value : indefinite.stats.xtx) value = -value;
  for (const auto& [streams, message] :
       {std::pair(&no_cross, "corrected targets: the calibration's sums have a wrong size"),
        std::pair(&other_drift, "corrected targets: the calibration's sums have a wrong size"),
        std::pair(&not_finite, "corrected targets are not finite"),
        std::pair(&indefinite, "corrected targets: the sums of the inputs cannot be factored")}) {
    try {
      corrected_targets(views, streams->stats, config, 1);
      ADD_FAILURE() << message;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kFailure);
      EXPECT_EQ(error.message().rfind(message, 0), 0u) << error.message();
    }
  }
}

}  // namespace
}  // namespace billm
