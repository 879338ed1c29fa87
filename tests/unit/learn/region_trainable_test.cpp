// RegionTrainable: it starts at exactly the given codes, keeps masks, says only what the file can
// say, and its gradients are those of its scales.
#include "../../../src/learn/region_trainable.h"

#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "../../../src/learn/adamw.h"
#include "../../../src/learn/region_start.h"
#include "billm/base/error.h"
#include "billm/model/runtime.h"
#include "support/compare.h"
#include "support/random_layer.h"

namespace billm {
namespace {

const c10::Device kCpu(c10::kCPU);

RegionFormat without_offsets(RegionFormat shape) {
  shape.offset_kind = OffsetKind::kNone;
  return shape;
}

// Levels are positive and grow within a set, as every method stores them.
RegionCodes sorted_codes(const RegionFormat& shape, uint32_t seed) {
  RegionCodes codes = test::random_codes(shape, seed);
  for (int64_t b = 0; b < shape.groups(); ++b) {
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

// [rows, cols], a copy.
at::Tensor matrix(std::vector<float> values, const RegionFormat& shape) {
  return at::from_blob(values.data(), {shape.rows, shape.cols}, at::kFloat).clone();
}
at::Tensor random_matrix(const RegionFormat& shape, uint32_t seed) {
  return matrix(test::random_normal(shape.rows * shape.cols, seed), shape);
}

std::vector<float> values(const at::Tensor& tensor) {
  const at::Tensor host = tensor.contiguous();
  return {host.const_data_ptr<float>(), host.const_data_ptr<float>() + host.numel()};
}

// A layer that learns by AdamW.
struct Learner {
  Learner(const RegionCodes& codes, uint32_t seed, const LearnRates& rates, double margin = 0.05,
          int threads = 1)
      : layer(codes, matrix(weights_near(codes, seed), codes.shape), rates, margin, kCpu, threads),
        optimizer(layer.parameters()),
        threads(threads) {
    init_torch();
  }
  void step(const at::Tensor& gradient, double rate = 1) {
    optimizer.step(layer.gradients(layer.weight(threads), gradient, threads), ++steps, rate,
                   threads);
    layer.refresh(threads);
  }
  RegionTrainable layer;
  AdamW optimizer;
  int threads, steps = 0;
};

// With codes that stay, and with codes that learn.
const LearnRates kNoCodes = {.code = 0, .scale = 0.3}, kAll = {.code = 0.3, .scale = 0.3};

void check_start(const RegionFormat& shape, uint32_t seed) {
  SCOPED_TRACE(test::text_of(shape));
  const RegionCodes codes = sorted_codes(shape, seed);
  const std::vector<float> expected = dequantize(codes);
  for (const LearnRates& rates : {kNoCodes, kAll}) {
    Learner learner(codes, seed + 1, rates, seed % 3 == 0 ? 0 : 0.05);
    // Classes of equal level may trade places: what counts is the value.
    EXPECT_EQ(values(learner.layer.weight(1)), expected);
    learner.layer.refresh(1);
    EXPECT_EQ(values(learner.layer.weight(1)), expected);
    const RegionCodes again = learner.layer.codes(1);
    EXPECT_EQ(again.scale, codes.scale);
    EXPECT_EQ(again.column_scale, codes.column_scale);
    EXPECT_EQ(dequantize(again), expected);
    if (rates.code == 0) {
      EXPECT_EQ(again.region, codes.region);
      EXPECT_EQ(again.code, codes.code);
    }
  }
}

TEST(RegionTrainable, StartsAtTheGivenCodes) {
  uint32_t seed = 1;
  for (const RegionFormat& shape : test::shape_sweep(3))
    check_start(without_offsets(shape), seed++);
  for (const RegionFormat& shape : test::shape_sweep_of_kinds()) {
    if (!shape.all_integers()) check_start(without_offsets(shape), seed++);
  }
}

void check_steps(const RegionFormat& shape, uint32_t seed) {
  SCOPED_TRACE(test::text_of(shape));
  const RegionCodes codes = sorted_codes(shape, seed);
  for (const LearnRates& rates : {kNoCodes, kAll}) {
    Learner learner(codes, seed + 1, rates);
    for (int step = 0; step < 5; ++step) learner.step(random_matrix(shape, seed++));
    const RegionCodes learned = learner.layer.codes(1);
    check_codes(learned);
    EXPECT_EQ(values(learner.layer.weight(1)), dequantize(learned));
    EXPECT_EQ(learned.salient, codes.salient);
    EXPECT_NE(learned.scale, codes.scale);
    for (size_t i = 0; i < codes.region.size(); ++i) {
      ASSERT_EQ(codes.region[i] == 0, learned.region[i] == 0) << "mask changed at " << i;
      const bool integer = codes.region[i] > shape.regions();
      ASSERT_EQ(integer, learned.region[i] > shape.regions()) << i;
      if (integer || rates.code == 0) {
        ASSERT_EQ(learned.code[i], codes.code[i]) << i;
      }
    }
    EXPECT_EQ(learned.code == codes.code, rates.code == 0 || codes.code.size() < 8);
    // A state says the same as the codes.
    Learner other(codes, seed + 7, rates);
    other.layer.restore(learner.layer.state());
    EXPECT_EQ(values(other.layer.weight(1)), dequantize(learned));
    EXPECT_EQ(other.layer.codes(1).region, learned.region);
  }
}

TEST(RegionTrainable, AnyStepsKeepTheFormatTheMaskAndTheIntegers) {
  uint32_t seed = 100;
  for (const RegionFormat& shape : test::shape_sweep(23)) {
    if (shape.rows * shape.cols >= 64) check_steps(without_offsets(shape), seed += 50);
  }
  for (const RegionFormat& shape : test::shape_sweep_of_kinds()) {
    if (!shape.all_integers() && shape.rows * shape.cols >= 64) {
      check_steps(without_offsets(shape), seed += 50);
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

// Several tiles, and the pieces of the optimizer.
TEST(RegionTrainable, ThreadsDoNotMatter) {
  RegionFormat shape = two_levels();
  shape.rows = 1100;
  const RegionCodes codes = sorted_codes(shape, 5);
  const LearnRates rates = {.code = 0.1, .scale = 0.1};
  Learner one(codes, 6, rates), three(codes, 6, rates, 0.05, 3);
  for (uint32_t step = 0; step < 4; ++step) {
    const at::Tensor gradient = random_matrix(shape, 7 + step);
    one.step(gradient);
    three.step(gradient);
  }
  EXPECT_TRUE(one.layer.weight(1).equal(three.layer.weight(3)));
  EXPECT_EQ(one.layer.codes(1).column_scale, three.layer.codes(1).column_scale);
}

TEST(RegionTrainable, NoGradientChangesNothing) {
  const RegionCodes codes = sorted_codes(two_levels(), 5);
  Learner learner(codes, 6, {.code = 0.1, .scale = 0.1});
  learner.step(matrix(std::vector<float>(70 * 130, 0.0f), codes.shape));
  EXPECT_EQ(values(learner.layer.weight(1)), dequantize(codes));
}

// Scales in fp32 are not rounded, so that the gradients are the slopes of the loss sum(G W), by
// central differences through the parameters.
TEST(RegionTrainable, GradientsAreSlopes) {
  for (const auto& [classes, salient_classes] : {std::pair{1, 0}, {2, 2}, {3, 2}, {1, 2}}) {
    RegionFormat shape = two_levels();
    shape.rows = 6;
    shape.classes = classes;
    shape.salient_classes = salient_classes;
    shape.scale_format = ScaleFormat::kF32;
    SCOPED_TRACE(test::text_of(shape));
    const RegionCodes codes = sorted_codes(shape, 17);
    Learner learner(codes, 18, kAll);
    const at::Tensor direction = random_matrix(shape, 19);
    const std::vector<at::Tensor> gradients =
        learner.layer.gradients(learner.layer.weight(1), direction, 1);
    const std::vector<Parameter> parameters = learner.layer.parameters();
    ASSERT_EQ(parameters.size(), 3u);
    EXPECT_TRUE(gradients[0].equal(direction));
    // Scales, not column scales: those are rounded to fp16.
    at::Tensor scale = parameters[1].value.view(-1);
    const at::Tensor expected = gradients[1].reshape(-1);
    const auto loss = [&] {
      learner.layer.refresh(1);
      return learner.layer.weight(1).to(at::kDouble).mul(direction).sum().item<double>();
    };
    for (int64_t i = 0; i < scale.numel(); ++i) {
      at::Tensor one = scale.narrow(0, i, 1);
      constexpr double kMove = 1e-3;  // too small for levels to meet
      one.add_(kMove);
      const double up = loss();
      one.sub_(2 * kMove);
      const double down = loss();
      one.add_(kMove);
      const double found = expected[i].item<double>();
      EXPECT_NEAR((up - down) / (2 * kMove), found, 1e-2 * std::fabs(found) + 0.05) << i;
    }
    loss();
    // The sum of all scales' gradients is that of the columns': d loss / d log of one factor.
    const at::Tensor product = learner.layer.weight(1).mul(direction);
    EXPECT_NEAR(gradients[1].sum().item<double>(), product.sum().item<double>(), 1e-2);
    const std::vector<float> columns = values(product.sum(at::IntArrayRef{0}));
    EXPECT_TRUE(test::close(values(gradients[2]), columns, {.absolute = 1e-4, .relative = 1e-4}));
  }
}

// The gradient of |Q - T|^2 / 2 for a T that the layer can represent leads there from elsewhere.
TEST(RegionTrainable, LearnsARepresentableTarget) {
  for (const bool column_scales : {false, true}) {
    RegionFormat shape = two_levels();
    shape.column_scales = column_scales;
    const RegionCodes goal = sorted_codes(shape, 11);
    RegionCodes start = sorted_codes(shape, 12);
    start.salient = goal.salient;
    start.region = goal.region;
    const at::Tensor target = matrix(dequantize(goal), shape);
    Learner learner(start, 13, {.code = 1, .scale = 1});
    const auto error = [&] { return learner.layer.weight(1).sub(target); };
    const double before = error().square().sum().item<double>();
    for (int step = 0; step < 300; ++step) learner.step(error(), 0.03 * (1 - step / 300.0));
    EXPECT_LT(error().square().sum().item<double>(), 0.3 * before)
        << "column scales: " << column_scales;
  }
}

// Only codes whose latents lie at a border move: as many as the margin lets.
TEST(RegionTrainable, FewCodesMoveInTheFirstStep) {
  RegionFormat shape = two_levels();
  shape.rows = 200;
  const RegionCodes codes = sorted_codes(shape, 23);
  Learner learner(codes, 24, {.code = 0.01, .scale = 0}, 0.05);
  learner.step(random_matrix(shape, 25));
  const RegionCodes learned = learner.layer.codes(1);
  int64_t moved = 0;
  for (size_t i = 0; i < codes.code.size(); ++i) {
    moved += codes.code[i] != learned.code[i] || codes.region[i] != learned.region[i];
  }
  // Weights are far off (noise of 0.3), so that most latents lie within 0.1 units of a border, a
  // tenth of these within a step's 0.01, and half of the steps lead there.
  EXPECT_GT(moved, 0);
  EXPECT_LT(moved, static_cast<int64_t>(codes.code.size()) / 10);
  EXPECT_EQ(learned.scale, codes.scale);
}

TEST(RegionTrainable, RefusesLevelsThatDoNotGrow) {
  RegionCodes codes = sorted_codes(two_levels(), 41);
  std::swap(codes.scale[codes.scale_index(0, 1, 3)], codes.scale[codes.scale_index(0, 2, 3)]);
  EXPECT_THROW(Learner(codes, 42, kAll), Error);
}

TEST(RegionTrainable, RefusesOffsetsAndIntegers) {
  RegionFormat shape = two_levels();
  shape.column_scales = false;
  shape.offset_kind = OffsetKind::kBlock;
  EXPECT_THROW(Learner(test::random_codes(shape, 1), 2, kAll), Error);
  shape = {};
  shape.rows = shape.cols = 8;
  shape.classes = shape.salient_classes = 0;
  shape.integer_bits = 2;
  shape.scale_format = ScaleFormat::kF16;
  EXPECT_THROW(Learner(test::random_codes(shape, 1), 2, kAll), Error);
}

}  // namespace
}  // namespace billm
