// The search of trellis paths: the same path on every target, its error that of a search in double.
#include "kernels/cpu/trellis_viterbi.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "unit/kernels/tile_testing.h"
#include "unit/kernels/trellis_testing.h"

namespace billm::kernels {
namespace {

std::vector<uint8_t> search(const TrellisMetric& metric, int k, const std::vector<float>& x,
                            const std::vector<float>& weight = {}) {
  TrellisScratch scratch;
  std::vector<uint8_t> states(x.size() / 4);
  trellis_viterbi(metric, k, x.data(), weight.empty() ? nullptr : weight.data(),
                  static_cast<int64_t>(states.size()), states.data(), &scratch);
  return states;
}

TrellisMetric metric_of(const TestTable& table, const TestFactor& factor) {
  return make_trellis_metric(table.entry, kTestUnit, factor.entry);
}

std::vector<float> random_weights(int64_t rows, uint32_t seed) {
  test::Random random(seed);
  std::vector<float> weight(static_cast<size_t>(rows));
  for (float& value : weight) value = std::exp(random.normal());
  return weight;
}

TEST(TrellisViterbi, IsTheReferenceOnEveryTarget) {
  const TestTable table(1);
  TrellisScratch scratch;  // of all calls: what is left there must not matter
  for (const int64_t rows : {1, 2, 3, 15, 16, 17, 64, 333, 512}) {
    for (int k = 1; k <= kMaxTrellisRate; ++k) {
      for (const int variant : {0, 1, 2, 3, 4}) {
        SCOPED_TRACE(testing::Message() << rows << " rows, K " << k << " variant " << variant);
        std::vector<float> x = test::random_normal(4 * rows, 2);
        std::vector<float> weight;
        if (variant >= 2) weight = random_weights(rows, 3);
        if (variant == 3) {  // what is not to be expected
          const auto last = static_cast<size_t>(rows - 1);
          x[0] = 20;
          x[4 * last + 1] = NAN;
          x[4 * (last / 2) + 2] = INFINITY;
          x[4 * (last / 3) + 3] = -std::numeric_limits<float>::max();
          weight[last / 2] = -1;
          weight[last / 3] = NAN;
          weight[last / 4] = INFINITY;
        }
        if (variant == 4) {
          for (float& value : x) value *= 50;
        }
        const TrellisMetric metric =
            metric_of(table, variant == 0 ? TestFactor::identity() : TestFactor::random(4));
        const float* weights = weight.empty() ? nullptr : weight.data();
        std::vector<uint8_t> expected(static_cast<size_t>(rows));
        trellis_viterbi_reference(metric, k, x.data(), weights, rows, expected.data());
        ASSERT_TRUE(is_trellis_path(expected, k));
        for_every_target([&](int64_t target) {
          std::vector<uint8_t> states(static_cast<size_t>(rows), 77);
          trellis_viterbi(metric, k, x.data(), weights, rows, states.data(), &scratch);
          EXPECT_EQ(states, expected) << "target " << target;
        });
      }
    }
  }
}

TEST(TrellisViterbi, ErrsAsASearchInDouble) {
  const TestTable table(5);
  for (int k = 1; k <= kMaxTrellisRate; ++k) {
    for (const bool weighted : {false, true}) {
      for (const bool general : {false, true}) {
        const TestFactor factor = general ? TestFactor::random(6) : TestFactor::identity();
        const TrellisMetric metric = metric_of(table, factor);
        double cost = 0, least = 0;
        for (const uint32_t seed : {7, 8}) {
          const std::vector<float> x = test::random_normal(4 * 256, seed);
          std::vector<float> weight;
          if (weighted) weight = random_weights(256, seed + 10);
          cost += trellis_cost(table, factor, x, weight, search(metric, k, x, weight));
          least += least_trellis_cost(table, factor, k, x, weight);
        }
        EXPECT_GE(cost, least * (1 - 1e-9));
        EXPECT_LE(cost, least * 1.001)
            << "K " << k << (weighted ? " weighted" : "") << (general ? " general" : "");
        RecordProperty("excess_k" + std::to_string(k) + (weighted ? "_weighted" : "") +
                           (general ? "_general" : ""),
                       std::to_string(cost / least - 1));
      }
    }
  }
}

// The distortion of Gaussian numbers, whose bound is 2^(-K/2): .25, .354, .5, .707. A table of
// random entries is some way above.
TEST(TrellisViterbi, DistortionOfGaussianNumbers) {
  const TestTable table(11);
  const TestFactor factor = TestFactor::identity();
  const TrellisMetric metric = metric_of(table, factor);
  const std::vector<float> x = test::random_normal(4 * 512, 12);
  const double bound[] = {0.707, 0.5, 0.354, 0.25};
  for (int k = 1; k <= kMaxTrellisRate; ++k) {
    const double distortion =
        trellis_cost(table, factor, x, {}, search(metric, k, x)) / static_cast<double>(x.size());
    EXPECT_GT(distortion, bound[k - 1] * 0.95) << k;
    EXPECT_LT(distortion, bound[k - 1] * 1.35) << k;
  }
}

TEST(TrellisViterbi, OutliersDoNotDisturbOtherRows) {
  const TestTable table(13);
  const TestFactor factor = TestFactor::identity();
  const TrellisMetric metric = metric_of(table, factor);
  std::vector<float> x = test::random_normal(4 * 512, 14);
  std::vector<float> outliers = x, others(512, 1.0f);
  for (size_t i = 30; i < 512; i += 60) {
    others[i] = 0;
    for (size_t j = 0; j < 4; ++j) outliers[4 * i + j] = (i + j) % 2 == 0 ? 20.0f : -20.0f;
  }
  for (int k = 1; k <= kMaxTrellisRate; ++k) {
    const double without = trellis_cost(table, factor, x, others, search(metric, k, x));
    const double with = trellis_cost(table, factor, x, others, search(metric, k, outliers));
    // Nine rows pull their neighbours, 8 / K on each side.
    EXPECT_LT(with, without * (k == 1 ? 1.5 : 1.3)) << k;
  }
}

TEST(TrellisViterbi, OneHeavyRowLeavesTheOthersTheirs) {
  const TestTable table(15);
  const TestFactor factor = TestFactor::identity();
  const TrellisMetric metric = metric_of(table, factor);
  const std::vector<float> x = test::random_normal(4 * 512, 16);
  std::vector<float> weight(512, 1.0f), ones(512, 1.0f);
  weight[100] = 1e6f;
  const std::vector<uint8_t> states = search(metric, 4, x, weight);
  EXPECT_LT(trellis_cost(table, factor, x, ones, states),
            1.02 * least_trellis_cost(table, factor, 4, x, ones));
}

TEST(TrellisViterbi, MetricOfNothing) {
  const TestTable table(17);
  TestFactor factor;  // zeros
  const std::vector<float> x = test::random_normal(4 * 20, 18);
  EXPECT_EQ(search(metric_of(table, factor), 2, x), std::vector<uint8_t>(20, 0));
  factor = TestFactor::identity();
  factor.entry[1][2] = NAN;
  EXPECT_EQ(search(metric_of(table, factor), 2, x), std::vector<uint8_t>(20, 0));
  EXPECT_TRUE(search(metric_of(table, TestFactor::identity()), 2, {}).empty());
}

}  // namespace
}  // namespace billm::kernels
