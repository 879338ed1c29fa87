// ARB-LLM RC: column scales and the codes found for them.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "billm/base/error.h"
#include "billm/quantize/methods.h"
#include "src/quantize/column_scales.h"
#include "support/compare.h"
#include "support/random_layer.h"

namespace billm::test {
namespace {

struct Layer {
  Layer(std::vector<float> weight, int64_t rows, int64_t cols)
      : w(std::move(weight)),
        rows(rows),
        cols(cols),
        hessian(make_hessian(correlated_stats(cols, 2 * cols + 50, 3), true, 0.01, 1)) {}
  WeightView view() const { return {w.data(), rows, cols}; }
  double error(const RegionCodes& linear) const {
    return layer_error(w, dequantize(linear), hessian.matrix, hessian.lambda, cols);
  }
  std::vector<float> w;
  int64_t rows, cols;
  Hessian hessian;
};

float column_size(int64_t col) { return std::exp2(static_cast<float>(col * 5 % 7) / 2 - 1.5f); }

// Normal weights whose columns differ in size by up to 2^3, as those of real layers do.
Layer uneven_layer(int64_t rows, int64_t cols, uint32_t seed) {
  std::vector<float> w = random_normal(rows * cols, seed, 0.05f);
  for (size_t i = 0; i < w.size(); ++i) w[i] *= column_size(static_cast<int64_t>(i) % cols);
  return Layer(std::move(w), rows, cols);
}

MethodConfig config_for(int classes, int salient_classes, int block_size) {
  MethodConfig config("arb");
  config.classes = classes;
  config.salient_classes = salient_classes;
  config.block_size = block_size;
  return config;
}

RegionCodes quantize(const char* method, const Layer& layer, MethodConfig config, int threads = 1) {
  config.method = method;
  check_config(config);
  return find_method(method)
      .quantize(layer.view(), layer.hessian, config, {.threads = threads})
      .regions();
}

// sign x row scale x column scale comes back within what fp16 says of a column, and log8 of a row
// (with independent inputs: feedback of the rounding would move signs).
TEST(Arb, RowTimesColumnComesBack) {
  constexpr int64_t kRows = 70, kCols = 130;
  Random random(7);
  std::vector<float> row_scale, w;
  for (int64_t row = 0; row < kRows; ++row) row_scale.push_back(0.02f + 0.1f * random.uniform());
  for (int64_t i = 0; i < kRows * kCols; ++i) {
    const float value = row_scale[static_cast<size_t>(i / kCols)] * column_size(i % kCols);
    w.push_back(random.below(2) != 0 ? value : -value);
  }
  Layer layer(w, kRows, kCols);
  MethodConfig config = config_for(1, 0, 4096);
  config.scale_format = ScaleFormat::kF32;
  EXPECT_TRUE(close(dequantize(quantize("arb", layer, config)), w, {.relative = 0x1p-10}));
  CalibrationStats independent;
  independent.width = kCols;
  independent.tokens = 2;
  independent.xtx.assign(kCols * kCols, 0.0f);
  for (int64_t i = 0; i < kCols; ++i) {
    independent.xtx[static_cast<size_t>(i * kCols + i)] = 1.0f + static_cast<float>(i % 5);
  }
  layer.hessian = make_hessian(independent, true, 0.01, 1);
  config.scale_format = ScaleFormat::kLog8;
  const RegionCodes log8 = quantize("arb", layer, config);
  EXPECT_EQ(log8.shape.regions(), 1);
  EXPECT_EQ(log8.shape.groups(), 1);
  EXPECT_TRUE(close(dequantize(log8), w, {.relative = 0.03}));  // 2^(1/32), and the columns adjust
}

TEST(Arb, BetterThanBillmWithTheSameClassesWhereColumnsDiffer) {
  const Layer layer = uneven_layer(96, 200, 1);
  for (const auto& [classes, salient] : {std::pair{1, 0}, {1, 2}, {2, 0}, {2, 2}}) {
    for (const int block_size : {64, 4096}) {
      SCOPED_TRACE(std::to_string(classes) + " " + std::to_string(salient) + " " +
                   std::to_string(block_size));
      const MethodConfig config = config_for(classes, salient, block_size);
      const RegionCodes arb = quantize("arb", layer, config);
      EXPECT_NO_THROW(check_codes(arb));
      EXPECT_LT(layer.error(arb), 0.9 * layer.error(quantize("billm", layer, config)));
    }
  }
}

TEST(Arb, RoundsNeverMakeItWorse) {
  int helped = 0;
  for (uint32_t seed = 1; seed <= 6; ++seed) {
    const Layer layer = uneven_layer(40 + 13 * seed, 150, seed);
    MethodConfig config = config_for(seed % 2 == 0 ? 1 : 2, seed % 2 == 0 ? 0 : 2, 64);
    double last = INFINITY;
    bool fell = false;
    for (config.column_rounds = 0; config.column_rounds < 5; ++config.column_rounds) {
      const double error = layer.error(quantize("arb", layer, config));
      EXPECT_LE(error, last * (1 + 1e-5)) << "seed " << seed << " round " << config.column_rounds;
      fell = fell || (config.column_rounds > 0 && error < last * (1 - 1e-4));
      last = error;
    }
    helped += fell;
  }
  EXPECT_GE(helped, 3);  // a layer may have its best pair at once
}

// Least squares against a search: no column's scale can be moved to a smaller error.
TEST(ColumnScales, RefitIsTheMinimum) {
  const Layer layer = uneven_layer(30, 40, 2);
  MethodConfig config = config_for(1, 0, 4096);
  config.column_rounds = 0;
  RegionCodes linear = quantize("arb", layer, config);
  for (float& scale : linear.column_scale) scale = 1.0f;
  const double before = layer.error(linear);
  const double after = refit_columns(layer.view(), layer.hessian, 1, &linear);
  EXPECT_NEAR(after / 2, layer.error(linear), 1e-4 * layer.error(linear));
  EXPECT_LT(after / 2, 0.9 * before);
  EXPECT_NO_THROW(check_codes(linear));
  for (size_t col = 0; col < linear.column_scale.size(); ++col) {
    for (const float factor : {0.99f, 1.01f}) {
      RegionCodes moved = linear;
      moved.column_scale[col] *= factor;
      EXPECT_GE(layer.error(moved), layer.error(linear)) << col << " x " << factor;
    }
  }
  // Already there: nothing changes.
  const std::vector<float> scales = linear.column_scale;
  const double again = refit_columns(layer.view(), layer.hessian, 1, &linear);
  EXPECT_NEAR(again, after, 1e-5 * after);
  EXPECT_TRUE(close(linear.column_scale, scales, {.relative = 0x1p-9}));
}

// Codes that point the wrong way ask for a negative scale: it stops at the bound.
TEST(ColumnScales, StayPositive) {
  const Layer layer = uneven_layer(30, 40, 4);
  RegionCodes linear = quantize("arb", layer, config_for(1, 0, 4096));
  for (int64_t row = 0; row < 30; ++row) linear.code[row * 40 + 11] ^= 1;
  const double before = layer.error(linear);
  EXPECT_LT(refit_columns(layer.view(), layer.hessian, 1, &linear) / 2, before);
  EXPECT_NO_THROW(check_codes(linear));
  EXPECT_LT(linear.column_scale[11], 0.1f);
  EXPECT_GE(linear.column_scale[11], kSmallestColumnScale);
}

TEST(ColumnScales, EvenColumnsStartAtOne) {
  std::vector<float> w(64 * 96);
  Random random(3);
  for (float& value : w) value = (random.below(2) != 0 ? 0.5f : -0.5f) * (1 + random.below(2));
  const Layer layer(w, 64, 96);
  RegionFormat shape;
  shape.rows = 64;
  shape.cols = 96;
  for (const float scale : first_column_scales(layer.view(), layer.hessian, shape, 1)) {
    EXPECT_EQ(scale, 1.0f);
  }
}

TEST(Arb, RaggedShapesAndDegenerateColumns) {
  for (const auto& [rows, cols] : {std::pair{1, 40}, {5, 1}, {1, 1}, {3, 130}, {65, 200}}) {
    for (const auto& [classes, salient] : {std::pair{1, 0}, {1, 3}, {2, 2}, {3, 1}}) {
      SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(cols));
      Layer layer = uneven_layer(rows, cols, 5);
      for (int64_t row = 0; row < rows; ++row) {
        layer.w[row * cols] = 0;                        // a column of zeros
        if (cols > 2) layer.w[row * cols + 1] *= 1e6f;  // and one beyond every scale
      }
      const RegionCodes linear = quantize("arb", layer, config_for(classes, salient, 64));
      ASSERT_NO_THROW(check_codes(linear));
      for (const float value : dequantize(linear)) ASSERT_TRUE(std::isfinite(value));
    }
  }
}

TEST(Arb, SameCodesForEveryThreadCount) {
  const Layer layer = uneven_layer(150, 200, 6);
  MethodConfig config = config_for(2, 2, 128);
  const RegionCodes one = quantize("arb", layer, config);
  for (const int threads : {2, 3, 5}) {
    const RegionCodes other = quantize("arb", layer, config, threads);
    EXPECT_EQ(other.column_scale, one.column_scale);
    EXPECT_EQ(other.scale, one.scale);
    EXPECT_EQ(other.region, one.region);
    EXPECT_EQ(other.code, one.code);
  }
}

}  // namespace
}  // namespace billm::test
