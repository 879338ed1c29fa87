// LatentLinear: it starts at exactly the given codes, keeps masks, says only what the file can say,
// and follows gradients the way Adam does.
#include "../../../src/learn/latent_linear.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "billm/base/error.h"
#include "support/compare.h"
#include "support/random_layer.h"

namespace billm {
namespace {

RegionFormat without_offsets(RegionFormat shape) {
  shape.offset_kind = OffsetKind::kNone;
  return shape;
}

// Levels are positive and grow within a set, as every method stores them.
RegionCodes sorted_codes(const RegionFormat& shape, uint32_t seed) {
  RegionCodes codes = test::random_codes(shape, seed);
  for (int64_t b = 0; b < shape.blocks(); ++b) {
    for (int64_t row = 0; row < shape.rows; ++row) {
      for (const auto& [first, count] :
           {std::pair{1, shape.classes}, std::pair{1 + shape.classes, shape.salient_classes}}) {
        std::vector<float> levels;
        for (int k = 0; k < count; ++k) {
          levels.push_back(std::fabs(codes.scale[codes.scale_index(b, first + k, row)]));
        }
        std::sort(levels.begin(), levels.end());
        for (int k = 0; k < count; ++k) {
          codes.scale[codes.scale_index(b, first + k, row)] = levels[static_cast<size_t>(k)];
        }
      }
    }
  }
  for (size_t c = 0; c < codes.column_scale.size(); ++c) {
    codes.column_scale[c] = 0.5f + 0.25f * static_cast<float>((c + seed) % 7);  // exact in fp16
  }
  return codes;
}

std::vector<float> weights_near(const RegionCodes& codes, uint32_t seed) {
  std::vector<float> weight = dequantize(codes);
  const std::vector<float> noise =
      test::random_normal(static_cast<int64_t>(weight.size()), seed, 0.3f);
  for (size_t i = 0; i < weight.size(); ++i) weight[i] += noise[i];
  return weight;
}

TEST(LatentLinear, StartsAtTheGivenCodes) {
  uint32_t seed = 1;
  for (RegionFormat shape : test::shape_sweep(3)) {
    shape = without_offsets(shape);
    SCOPED_TRACE(test::text_of(shape));
    const RegionCodes codes = sorted_codes(shape, seed++);
    LatentLinear latent(codes, weights_near(codes, seed).data(), 0.05);
    // Classes of equal level may trade places: what counts is the value.
    const std::vector<float> expected = dequantize(codes);
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), latent.weight()));
    EXPECT_EQ(latent.codes().scale, codes.scale);
  }
}

TEST(LatentLinear, AnyStepsKeepTheFormatAndTheMask) {
  uint32_t seed = 100;
  for (RegionFormat shape : test::shape_sweep(7)) {
    shape = without_offsets(shape);
    SCOPED_TRACE(test::text_of(shape));
    const RegionCodes codes = sorted_codes(shape, seed++);
    LatentLinear latent(codes, weights_near(codes, seed).data(), 0.05);
    for (int step = 0; step < 5; ++step) {
      const std::vector<float> gradient = test::random_normal(shape.rows * shape.cols, seed++);
      latent.step(gradient.data(), {.code = 0.3, .scale = 0.3}, 1);
    }
    check_codes(latent.codes());
    const std::vector<float> expected = dequantize(latent.codes());
    EXPECT_TRUE(test::close({latent.weight(), expected.size()}, expected));
    for (size_t i = 0; i < codes.region.size(); ++i) {
      ASSERT_EQ(codes.region[i] == 0, latent.codes().region[i] == 0) << "mask changed at " << i;
    }
  }
}

RegionFormat two_levels() {
  RegionFormat shape;
  shape.rows = 70;
  shape.cols = 130;
  shape.block_size = 64;
  shape.column_scales = true;
  return shape;
}

TEST(LatentLinear, ThreadsDoNotMatter) {
  const RegionCodes codes = sorted_codes(two_levels(), 5);
  const std::vector<float> weight = weights_near(codes, 6);
  LatentLinear one(codes, weight.data(), 0.05), four(codes, weight.data(), 0.05);
  for (uint32_t step = 0; step < 4; ++step) {
    const std::vector<float> gradient = test::random_normal(70 * 130, 7 + step);
    one.step(gradient.data(), {.code = 0.1, .scale = 0.1}, 1);
    four.step(gradient.data(), {.code = 0.1, .scale = 0.1}, 4);
  }
  EXPECT_TRUE(std::equal(one.weight(), one.weight() + 70 * 130, four.weight()));
  EXPECT_EQ(one.codes().column_scale, four.codes().column_scale);
}

TEST(LatentLinear, NoGradientOrNoRateChangesNothing) {
  const RegionCodes codes = sorted_codes(two_levels(), 5);
  const std::vector<float> weight = weights_near(codes, 6), expected = dequantize(codes);
  LatentLinear latent(codes, weight.data(), 0.05);
  const std::vector<float> zero(expected.size(), 0.0f);
  latent.step(zero.data(), {.code = 0.1, .scale = 0.1}, 1);
  EXPECT_TRUE(test::close({latent.weight(), expected.size()}, expected));
  latent.step(test::random_normal(70 * 130, 3).data(), {.code = 0, .scale = 0}, 1);
  EXPECT_TRUE(test::close({latent.weight(), expected.size()}, expected));
}

// The gradient of |Q - T|^2 / 2 for a T that the layer can represent leads there from elsewhere.
TEST(LatentLinear, LearnsARepresentableTarget) {
  for (const bool column_scales : {false, true}) {
    RegionFormat shape = two_levels();
    shape.column_scales = column_scales;
    const RegionCodes goal = sorted_codes(shape, 11);
    RegionCodes start = sorted_codes(shape, 12);
    start.salient = goal.salient;
    for (size_t i = 0; i < start.region.size(); ++i) start.region[i] = goal.region[i];
    const std::vector<float> target = dequantize(goal);
    LatentLinear latent(start, weights_near(start, 13).data(), 0.05);
    std::vector<float> gradient(target.size());
    const auto error = [&] {
      double sum = 0;
      for (size_t i = 0; i < target.size(); ++i) {
        gradient[i] = latent.weight()[i] - target[i];
        sum += double{gradient[i]} * gradient[i];
      }
      return sum;
    };
    const double before = error();
    for (int step = 0; step < 300; ++step) {
      const double rate = 0.03 * (1 - step / 300.0);
      latent.step(gradient.data(), {.code = rate, .scale = rate}, 1);
      error();
    }
    EXPECT_LT(error(), 0.3 * before) << "column scales: " << column_scales;
  }
}

// Integer weights are frozen, but their columns' scales are not.
TEST(LatentLinear, ScatteredIntegersFollowTheirColumns) {
  RegionFormat shape = two_levels();
  shape.integer_bits = 8;
  shape.scattered = true;
  for (uint32_t seed = 21; seed < 27; ++seed) {  // shares of integers from none to all
    const RegionCodes codes = sorted_codes(shape, seed);
    LatentLinear latent(codes, weights_near(codes, seed + 1).data(), 0.05);
    for (uint32_t step = 0; step < 4; ++step) {
      const std::vector<float> gradient = test::random_normal(70 * 130, seed + step);
      latent.step(gradient.data(), {.code = 0.2, .scale = 0.2}, 1);
    }
    check_codes(latent.codes());
    EXPECT_NE(latent.codes().column_scale, codes.column_scale);
    const std::vector<float> expected = dequantize(latent.codes());
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), latent.weight()));
    for (size_t i = 0; i < codes.region.size(); ++i) {
      if (codes.region[i] > shape.regions()) {
        ASSERT_EQ(latent.codes().code[i], codes.code[i]);
      }
    }
  }
}

TEST(LatentLinear, ExactScalesStayAtRateZero) {
  RegionFormat shape = two_levels();
  shape.column_scales = false;
  shape.scale_format = ScaleFormat::kF32;
  const RegionCodes codes = sorted_codes(shape, 31);
  LatentLinear latent(codes, weights_near(codes, 32).data(), 0.05);
  latent.step(test::random_normal(70 * 130, 33).data(), {.code = 0.1, .scale = 0}, 1);
  EXPECT_EQ(latent.codes().scale, codes.scale);
}

TEST(LatentLinear, RefusesLevelsThatDoNotGrow) {
  RegionFormat shape = two_levels();
  RegionCodes codes = sorted_codes(shape, 41);
  const std::vector<float> weight = weights_near(codes, 42);
  std::swap(codes.scale[codes.scale_index(0, 1, 3)], codes.scale[codes.scale_index(0, 2, 3)]);
  EXPECT_THROW(LatentLinear(codes, weight.data(), 0.05), Error);
}

TEST(LatentLinear, RefusesOffsets) {
  RegionFormat shape = two_levels();
  shape.column_scales = false;
  shape.offset_kind = OffsetKind::kBlock;
  const RegionCodes codes = test::random_codes(shape, 1);
  const std::vector<float> weight = dequantize(codes);
  EXPECT_THROW(LatentLinear(codes, weight.data(), 0.05), Error);
}

}  // namespace
}  // namespace billm
