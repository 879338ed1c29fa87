// Packed linears as operators, and the 8-bit head, against the decoded weight.
#include "billm/model/linear_operator.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "billm/codes/region_codes.h"
#include "billm/model/dense_linear.h"
#include "billm/model/output_head.h"
#include "support/random_layer.h"

namespace billm {
namespace {

RegionFormat some_shape(int64_t rows, int64_t cols) {
  RegionFormat shape;
  shape.rows = rows;
  shape.cols = cols;
  return shape;
}

at::Tensor matrix(std::vector<float>& values, int64_t rows, int64_t cols) {
  return at::from_blob(values.data(), {rows, cols}, at::kFloat);
}

// |a - b| / |b|.
double relative_error(const at::Tensor& a, const at::Tensor& b) {
  return a.sub(b).norm().item<double>() / b.norm().item<double>();
}

TEST(LinearOperator, AnyNumberOfTokensAndThreads) {
  // Few rows of two planes would be decoded.
  const RegionCodes linear = test::random_codes(some_shape(2100, 260), 1);
  const PackedLayer packed = pack(LayerCodes(linear));
  std::vector<float> w = dequantize(linear);
  CpuRunner one(1), three(3);
  const auto a = one.make(packed), b = three.make(packed);
  const auto copies =
      three.make_copies(std::get<PackedPlanes>(packed.factors[0]), 3 * a->bytes() + 5);
  ASSERT_EQ(copies.size(), 4u);
  ASSERT_NE(a, nullptr);
  EXPECT_GT(a->bytes(), packed.bytes() / 2);
  for (const int64_t tokens : {1, 2, 3, 4, 5, 64, 65, 130}) {
    std::vector<float> values = test::random_normal(tokens * 260, 2);
    const at::Tensor x = matrix(values, tokens, 260);
    const at::Tensor y = a->apply(x), expected = at::mm(x, matrix(w, 2100, 260).t());
    ASSERT_EQ(y.sizes(), (at::IntArrayRef{tokens, 2100}));
    EXPECT_LT(relative_error(y, expected), 0.02) << tokens;
    EXPECT_TRUE(b->apply(x).equal(y)) << tokens;
    for (const auto& copy : copies) EXPECT_TRUE(copy->apply(x).equal(y)) << tokens;
    // A token's product does not depend on its neighbours.
    EXPECT_TRUE(a->apply(x.narrow(0, tokens - 1, 1)).equal(y.narrow(0, tokens - 1, 1))) << tokens;
  }
}

TEST(LinearOperator, ManyTokensOfLayersWithManyPlanes) {
  RegionFormat pruned = some_shape(600, 264), scattered = some_shape(90, 200);
  pruned.classes = pruned.salient_classes = 3;
  pruned.nm = {4, 8};
  scattered.classes = 1;
  scattered.salient_classes = 0;
  scattered.integer_bits = 8;
  scattered.scattered = scattered.column_scales = true;
  for (const RegionFormat& shape : {pruned, scattered}) {
    const RegionCodes linear = test::random_codes(shape, 4);
    std::vector<float> w = dequantize(linear);
    CpuRunner one(1), two(2);
    const auto a = one.make(pack(linear)), b = two.make(pack(linear));
    std::vector<float> values = test::random_normal(40 * shape.cols, 2);
    const at::Tensor x = matrix(values, 40, shape.cols);
    const at::Tensor y = a->apply(x);
    EXPECT_LT(relative_error(y, at::mm(x, matrix(w, shape.rows, shape.cols).t())), 1e-5);
    EXPECT_TRUE(b->apply(x).equal(y));
    EXPECT_LT(relative_error(a->apply(x.narrow(0, 3, 8)), y.narrow(0, 3, 8)), 0.02);
  }
}

TEST(LinearOperator, Trellises) {
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{70, 30}, {1100, 260}}) {
    const TrellisCodes codes = test::random_trellis(rows, cols, {4, 1}, 3);
    const PackedLayer packed = pack(LayerCodes(codes));
    std::vector<float> w = dequantize(codes);
    CpuRunner one(1), three(3);
    const auto a = one.make(packed), b = three.make(packed);
    ASSERT_NE(a, nullptr);
    EXPECT_GE(a->bytes(), packed.bytes());
    for (const int64_t tokens : {1, 2, 3, 33}) {
      std::vector<float> values = test::random_normal(tokens * cols, 2);
      const at::Tensor x = matrix(values, tokens, cols);
      const at::Tensor y = a->apply(x), expected = at::mm(x, matrix(w, rows, cols).t());
      ASSERT_EQ(y.sizes(), (at::IntArrayRef{tokens, rows}));
      EXPECT_LT(relative_error(y, expected), 0.02) << tokens;
      EXPECT_TRUE(b->apply(x).equal(y)) << tokens;
    }
  }
}

// How sums of a wide product are rounded depends on how it is cut.
TEST(LinearOperator, DecodedProductsDoNotDependOnThreads) {
  RegionFormat shape = some_shape(1024, 4096);
  shape.classes = shape.salient_classes = 3;
  shape.nm = {4, 8};
  const PackedLayer packed = pack(LayerCodes(test::random_codes(shape, 6)));
  std::vector<float> values = test::random_normal(512 * shape.cols, 2);
  const at::Tensor x = matrix(values, 512, shape.cols);
  CpuRunner one(1), three(3);
  EXPECT_TRUE(one.make(packed)->apply(x).equal(three.make(packed)->apply(x)));
}

TEST(LinearOperator, NotANumberStaysOne) {
  const RegionCodes linear = test::random_codes(some_shape(40, 300), 1);
  CpuRunner runner(1);
  const auto layer = runner.make(pack(linear));
  for (const float bad : {NAN, INFINITY}) {
    std::vector<float> values = test::random_normal(300, 2);
    values[211] = bad;
    const at::Tensor y = layer->apply(matrix(values, 1, 300));
    for (int64_t row = 0; row < 40; ++row) {
      EXPECT_FALSE(std::isfinite(y.const_data_ptr<float>()[row])) << row;
    }
  }
}

TEST(LinearOperator, NothingForLayersThatCannotBeRunPacked) {
  RegionFormat shape = some_shape(8, 128);
  shape.offset_kind = OffsetKind::kRegion;
  CpuRunner runner(1);
  EXPECT_EQ(runner.make(pack(test::random_codes(shape, 1))), nullptr);
}

TEST(DenseLinear, AnyNumberOfTokensAndThreads) {
  std::vector<float> w = test::random_normal(700 * 90, 1);
  const at::Tensor weight = matrix(w, 700, 90);
  WorkerTeam one(1), three(3);
  const DenseLinear a(weight, &one), b(weight, &three), without(weight, nullptr);
  EXPECT_EQ(a.bytes(), 4 * 700 * 90);
  for (const int64_t tokens : {1, 2, 16, 17, 256, 300}) {
    std::vector<float> values = test::random_normal(tokens * 90, 2);
    const at::Tensor x = matrix(values, tokens, 90), y = a.apply(x);
    ASSERT_EQ(y.sizes(), (at::IntArrayRef{tokens, 700}));
    EXPECT_LT(relative_error(y, at::mm(x, weight.t())), 1e-6) << tokens;
    EXPECT_TRUE(b.apply(x).equal(y)) << tokens;
    EXPECT_LT(relative_error(without.apply(x), y), 1e-6) << tokens;
  }
}

TEST(OutputHead, EightBitsAreTheNearest) {
  std::vector<float> weight = test::random_normal(70 * 200, 3, 0.02f);
  for (int64_t col = 0; col < 128; ++col) weight[static_cast<size_t>(5 * 200 + col)] = 0;
  const RegionCodes rounded = round_to_8_bits(weight.data(), 70, 200, 2);
  check_codes(rounded);
  EXPECT_EQ(round_to_8_bits(weight.data(), 70, 200, 1).code, rounded.code);
  const std::vector<float> w = dequantize(rounded);
  for (int64_t row = 0; row < 70; ++row) {
    for (int64_t col = 0; col < 200; ++col) {
      const auto at = static_cast<size_t>(row * 200 + col);
      const float step =
          rounded.step[static_cast<size_t>(rounded.step_index(col / kHeadBlock, row))];
      // Half a step, and the largest weight may lie a little beyond a step rounded down to fp16.
      EXPECT_LE(std::fabs(w[at] - weight[at]), 0.5f * step + 0.001f * std::fabs(weight[at]));
    }
  }
  CpuRunner runner(2);
  const auto head = runner.make(pack(rounded));
  std::vector<float> values = test::random_normal(3 * 200, 4);
  const at::Tensor x = matrix(values, 3, 200);
  EXPECT_LT(relative_error(head->apply(x), at::mm(x, matrix(weight, 70, 200).t())), 0.02);
}

}  // namespace
}  // namespace billm
