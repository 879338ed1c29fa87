// Binary factors: bits, ranks, and the error on seeded layers. The golden layer is in
// golden_test.cpp.
#include <gtest/gtest.h>

#include <cmath>

#include "billm/pack/packed_layer.h"
#include "billm/quantize/methods.h"
#include "support/hessian_layer.h"
#include "support/random_layer.h"

namespace billm::test {
namespace {

struct Layer : HessianLayer {
  using HessianLayer::HessianLayer;
  LayerCodes quantize(double bits, int threads = 1) const {
    return find_method("dbf").quantize({w.data(), rows, cols}, hessian,
                                       configure("dbf", {{"bits", bits}}), {.threads = threads});
  }
};

double formula(int64_t n, int64_t m, int64_t r) {
  return static_cast<double>(r * (n + m) + 16 * (n + r + m)) / static_cast<double>(n * m);
}

TEST(Dbf, StoredBitsAreTheFormulaAtTheLargestRankThatFits) {
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{96, 288}, {288, 96}, {100, 130}}) {
    const Layer layer(rows, cols);
    for (const double bits : {0.5, 1.0, 1.5}) {
      const LayerCodes codes = layer.quantize(bits);
      ASSERT_EQ(codes.factors.size(), 2u);
      const int64_t rank = factor_cols(codes.factors[0]);
      EXPECT_EQ(rank % 8, 0);
      EXPECT_EQ(find_method("dbf").rank({rows, cols}, bits), rank);
      EXPECT_LE(formula(rows, cols, rank), bits);
      EXPECT_GT(formula(rows, cols, rank + 8), bits);
      EXPECT_DOUBLE_EQ(pack(codes).stored_bits(), formula(rows, cols, rank));
      EXPECT_DOUBLE_EQ(find_method("dbf").nominal_bits(codes), formula(rows, cols, rank));
    }
  }
}

TEST(Dbf, RanksShareTheRemainder) {
  // SmolLM2-135M: q, k, v, o, gate, up, down of 30 blocks.
  std::vector<LayerSize> sizes;
  for (int block = 0; block < 30; ++block) {
    for (const LayerSize size : {LayerSize{576, 576},
                                 {192, 576},
                                 {192, 576},
                                 {576, 576},
                                 {1536, 576},
                                 {1536, 576},
                                 {576, 1536}}) {
      sizes.push_back(size);
    }
  }
  for (const double bits : {0.5, 0.55, 0.8, 1.0, 1.37, 1.5}) {
    const std::vector<double> plan =
        find_method("dbf").plan_bits(sizes, configure("dbf", {{"bits", bits}}));
    ASSERT_EQ(plan.size(), sizes.size());
    double used = 0, weights = 0;
    for (size_t i = 0; i < sizes.size(); ++i) {
      const auto [rows, cols] = sizes[i];
      const double size = static_cast<double>(rows * cols);
      used += plan[i] * size;
      weights += size;
      EXPECT_LE(used, bits * weights * (1 + 1e-12));  // at every place of the model
      EXPECT_NEAR(plan[i], bits, 0.09);               // a step of 576 x 576 is that of 192 x 576
    }
    // What is left is less than one step of the last layer.
    EXPECT_GT(used, bits * weights - 8 * (576 + 1536 + 16));
  }
}

TEST(Dbf, PlannedBitsGiveThePlannedRank) {
  const Layer layer(40, 56);
  for (int64_t rank = 8; rank <= 24; rank += 8) {
    MethodConfig config("dbf");
    config.bits = formula(40, 56, rank);  // as the plan says it
    const LayerCodes codes =
        find_method("dbf").quantize({layer.w.data(), 40, 56}, layer.hessian, config, {});
    EXPECT_EQ(factor_cols(codes.factors[0]), rank);
  }
}

TEST(Dbf, TheSmallestRankIsOneStep) {
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 40}, {5, 1}, {1, 1}}) {
    EXPECT_EQ(factor_cols(Layer(rows, cols).quantize(1.0).factors[0]), 8);
  }
}

TEST(Dbf, MoreBitsLessError) {
  const Layer layer(96, 160);
  double last = 1;
  for (const double bits : {0.6, 0.8, 1.0, 1.25, 1.5}) {
    const double error = layer.error(layer.quantize(bits));
    EXPECT_LT(error, 0.9 * last) << bits;
    last = error;
  }
}

// A weight that is a product of signs is found but for a few of them (0.059 measured; 0.42 for
// independent weights and as many bits).
TEST(Dbf, FindsFactorsOfSigns) {
  constexpr int64_t kRows = 160, kCols = 200, kRank = 40;
  Layer layer(kRows, kCols);
  Random random(3);
  std::vector<float> left, right;
  for (int64_t i = 0; i < kRows * kRank; ++i) left.push_back(random.below(2) != 0 ? 1.0f : -1.0f);
  for (int64_t i = 0; i < kRank * kCols; ++i) right.push_back(random.below(2) != 0 ? 1.0f : -1.0f);
  for (int64_t i = 0; i < kRows; ++i) {
    for (int64_t j = 0; j < kCols; ++j) {
      float sum = 0;
      for (int64_t k = 0; k < kRank; ++k) sum += left[i * kRank + k] * right[k * kCols + j];
      layer.w[i * kCols + j] = 0.01f * sum * (1 + 0.01f * static_cast<float>(i % 50));
    }
  }
  EXPECT_LT(layer.error(layer.quantize(formula(kRows, kCols, kRank))), 0.1);
}

TEST(Dbf, SameBytesAtAnyThreadCount) {
  const Layer layer(200, 230);
  const auto bytes = [&](int threads) {
    std::vector<std::byte> all;
    for_each_plane(pack(layer.quantize(1.0, threads)), [&](const std::string&, const Plane& plane) {
      all.insert(all.end(), plane.bytes.begin(), plane.bytes.end());
    });
    return all;
  };
  const std::vector<std::byte> one = bytes(1);
  EXPECT_EQ(bytes(2), one);
  EXPECT_EQ(bytes(3), one);
}

// Only the product of the three vectors is determined, so the scale of the weights does not matter
// as long as its cube root fits in fp16.
TEST(Dbf, AnyScaleOfWeights) {
  const Layer layer(48, 64);
  const double error = layer.error(layer.quantize(1.0));
  for (const float factor : {0x1p-20f, 0x1p-8f, 0x1p10f, 0x1p24f}) {
    Layer scaled = layer;
    for (float& w : scaled.w) w *= factor;
    EXPECT_NEAR(scaled.error(scaled.quantize(1.0)), error, 0.05 * error) << factor;
  }
}

}  // namespace
}  // namespace billm::test
