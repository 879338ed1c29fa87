// Magnitude splits against trying every threshold.
#include "src/quantize/splits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "support/random_layer.h"

namespace billm {
namespace {

struct Sample {
  float magnitude, h;
};
using Samples = std::vector<Sample>;

// Error of samples [begin, end) under their own mean.
double group_error(const Samples& sorted, size_t begin, size_t end) {
  double h = 0, hw = 0, error = 0;
  for (size_t i = begin; i < end; ++i) {
    h += sorted[i].h;
    hw += double{sorted[i].h} * sorted[i].magnitude;
  }
  if (h == 0) return 0;
  for (size_t i = begin; i < end; ++i) {
    const double d = sorted[i].magnitude - hw / h;
    error += sorted[i].h * d * d;
  }
  return error;
}

double brute_force(Samples sorted, int classes) {
  std::sort(sorted.begin(), sorted.end(),
            [](const Sample& a, const Sample& b) { return a.magnitude < b.magnitude; });
  const size_t n = sorted.size();
  double best = group_error(sorted, 0, n);
  for (size_t i = 0; classes >= 2 && i <= n; ++i) {
    const double low = group_error(sorted, 0, i);
    for (size_t j = classes == 2 ? n : i; j <= n; ++j) {
      best = std::min(best, low + group_error(sorted, i, j) + group_error(sorted, j, n));
    }
  }
  return best;
}

double fit(const Samples& samples, int classes, float* levels) {
  MagnitudeFit magnitudes;
  magnitudes.add(99, 99);  // reset() forgets it
  magnitudes.reset();
  for (const Sample& sample : samples) magnitudes.add(sample.magnitude, sample.h);
  return magnitudes.fit(classes, levels);
}

// The error that the levels give when every sample takes its nearest one.
double error_of(const Samples& samples, int classes, const float* levels) {
  double error = 0;
  for (const Sample& sample : samples) {
    double best = INFINITY;
    for (int k = 0; k < classes; ++k) {
      const double d = double{sample.magnitude} - levels[k];
      best = std::min(best, d * d);
    }
    error += sample.h * best;
  }
  return error;
}

Samples random_samples(int count, bool heavy_tails, test::Random* random) {
  Samples samples;
  for (int i = 0; i < count; ++i) {
    const float w = std::fabs(random->normal());
    const float h = random->uniform();
    samples.push_back({heavy_tails ? w * w * w : w, 0.1f + h});
  }
  return samples;
}

TEST(MagnitudeFit, Optimal) {
  test::Random random(1);
  for (int trial = 0; trial < 200; ++trial) {
    const Samples samples = random_samples(1 + trial % 60, trial % 2 == 1, &random);
    double fewer = INFINITY;
    for (const int classes : {1, 2, 3}) {
      float levels[3] = {};
      const double error = fit(samples, classes, levels);
      const double best = brute_force(samples, classes);
      ASSERT_NEAR(error, best, 1e-6 * (best + 1e-3)) << trial << ", K = " << classes;
      ASSERT_NEAR(error_of(samples, classes, levels), best, 1e-5 * (best + 1e-2)) << trial;
      ASSERT_TRUE(std::is_sorted(levels, levels + classes));
      ASSERT_LE(error, fewer) << trial << ", K = " << classes;
      fewer = error;
    }
  }
}

TEST(MagnitudeFit, Edges) {
  float levels[3] = {7, 7, 7};
  for (const int classes : {1, 2, 3}) {
    EXPECT_EQ(fit({}, classes, levels), 0);
    for (int k = 0; k < classes; ++k) EXPECT_EQ(levels[k], 0.0f);
    EXPECT_NEAR(fit({{2, 1}}, classes, levels), 0, 1e-12);
    for (int k = 0; k < classes; ++k) EXPECT_EQ(levels[k], 2.0f);  // empty ones repeat
    EXPECT_NEAR(fit(Samples(9, Sample{0.5f, 0.25f}), classes, levels), 0, 1e-12);
    for (int k = 0; k < classes; ++k) EXPECT_EQ(levels[k], 0.5f);
    fit({{1, 0}, {2, 0}, {3, 0}}, classes, levels);  // no weight at all
    for (int k = 0; k < classes; ++k) EXPECT_EQ(levels[k], 0.0f);
    fit({{0, 1}, {0, 1}}, classes, levels);
    for (int k = 0; k < classes; ++k) EXPECT_EQ(levels[k], 0.0f);
  }
  EXPECT_NEAR(fit({{3, 1}, {1, 1}, {3, 1}, {1, 5}}, 2, levels), 0, 1e-9);
  EXPECT_EQ(levels[0], 1.0f);
  EXPECT_EQ(levels[1], 3.0f);
  EXPECT_NEAR(fit({{1, 1}, {1, 1}, {3, 1}, {3, 1}, {9, 1}, {9, 1}}, 3, levels), 0, 1e-9);
  EXPECT_EQ(levels[1], 3.0f);
}

TEST(MagnitudeFit, OrderOfAdditionDoesNotMatterForTheLevels) {
  test::Random random(3);
  Samples samples = random_samples(50, false, &random);
  float first[3], second[3];
  fit(samples, 3, first);
  std::reverse(samples.begin(), samples.end());
  fit(samples, 3, second);
  for (int k = 0; k < 3; ++k) EXPECT_EQ(first[k], second[k]);
}

}  // namespace
}  // namespace billm
