// LayerTrainable: products of factors start at their weight, gradients reach every factor, and the
// table of what learns has every kind.
#include "../../../src/learn/layer_trainable.h"

#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>

#include "../../../src/learn/adamw.h"
#include "../../../src/learn/factor_kinds.h"
#include "billm/model/runtime.h"
#include "support/compare.h"
#include "support/random_layer.h"

namespace billm {
namespace {

const c10::Device kCpu(c10::kCPU);

at::Tensor matrix(std::vector<float> values, int64_t rows, int64_t cols) {
  return at::from_blob(values.data(), {rows, cols}, at::kFloat).clone();
}
at::Tensor weight_of(const LayerCodes& codes) {
  return matrix(dequantize(codes), codes.rows(), codes.cols());
}
at::Tensor random_matrix(int64_t rows, int64_t cols, uint32_t seed) {
  return matrix(test::random_normal(rows * cols, seed), rows, cols);
}
std::vector<float> values(const at::Tensor& tensor) {
  const at::Tensor host = tensor.contiguous();
  return {host.const_data_ptr<float>(), host.const_data_ptr<float>() + host.numel()};
}

// One class, whole rows, fp32 scales.
RegionCodes signs(int64_t rows, int64_t cols, uint32_t seed) {
  RegionFormat format;
  format.rows = rows;
  format.cols = cols;
  format.block_size = 4096;
  format.classes = 1;
  format.salient_classes = 0;
  format.scale_format = ScaleFormat::kF32;
  RegionCodes codes = test::random_codes(format, seed);
  for (float& scale : codes.scale) scale = 0.5f + std::fabs(scale);
  return codes;
}

LayerCodes rotated(uint32_t seed) {
  LayerCodes codes;
  codes.factors = {Rotation{40, seed, true}, signs(40, 96, seed), Rotation{96, seed + 1, false}};
  return codes;
}
LayerCodes binary(uint32_t seed) {
  LayerCodes codes;
  codes.factors = {signs(40, 16, seed), signs(16, 96, seed + 1)};
  return codes;
}

LayerCodes on_trellis(uint32_t seed) {
  TrellisCodes codes = test::random_trellis(40, 96, {4, 2}, seed);
  for (float& scale : codes.scale) scale = 0.25f + std::fabs(scale);
  for (float& scale : codes.scale) scale = round_to_half(scale);
  LayerCodes layer;
  layer.factors = {Rotation{40, seed, true}, std::move(codes), Rotation{96, seed + 1, false}};
  return layer;
}

TEST(LayerTrainable, EveryKindOfFactorHasARow) {
  const auto rows = factor_learning();
  const auto names = factor_kind_names();
  ASSERT_EQ(rows.size(), names.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_STREQ(rows[i].kind, names[i]);
    if (rows[i].without == nullptr) continue;
    EXPECT_GT(std::string(rows[i].without).size(), 20u) << names[i];
  }
}

TEST(LayerTrainable, RotationsAreThoseOfTheFormat) {
  for (const int64_t size : {1, 2, 3, 40, 96, 576}) {
    for (const bool transposed : {false, true}) {
      const Rotation rotation = {size, 11, transposed};
      const at::Tensor vectors = random_matrix(3, size, 5);
      at::Tensor expected = vectors.to(at::kDouble);
      rotate(rotation, expected.mutable_data_ptr<double>(), 3, size);
      const DeviceRotation device(rotation, kCpu);
      EXPECT_TRUE(test::close(values(device.rows(vectors, false)), values(expected.to(at::kFloat)),
                              {.absolute = 1e-5}))
          << size;
      EXPECT_TRUE(test::close(values(device.rows(device.rows(vectors, false), true)),
                              values(vectors), {.absolute = 1e-5}));
    }
  }
}

TEST(LayerTrainable, StartsAtTheProduct) {
  for (const LayerCodes& codes : {rotated(1), binary(2), on_trellis(3)}) {
    const at::Tensor expected = weight_of(codes);
    for (const double code_rate : {0.0, 0.1}) {
      LayerTrainable layer(codes, random_matrix(40, 96, 3), {code_rate, 0.1}, 0.05, kCpu, 1);
      EXPECT_TRUE(test::close(values(layer.weight(1)), values(expected),
                              {.absolute = 1e-4, .relative = 1e-4}));
      const LayerCodes again = layer.codes(1);
      ASSERT_EQ(again.factors.size(), codes.factors.size());
      EXPECT_EQ(dequantize(again), values(expected));
    }
  }
}

// The latents' gradients are those of the factor (straight through), by central differences of it;
// those of the scales are slopes, too.
TEST(LayerTrainable, GradientsReachEveryFactor) {
  for (const LayerCodes& codes : {rotated(21), binary(22)}) {
    LayerTrainable layer(codes, weight_of(codes), {0.1, 0.1}, 0.05, kCpu, 1);
    const at::Tensor direction = random_matrix(40, 96, 23);
    const std::vector<Parameter> parameters = layer.parameters();
    const std::vector<at::Tensor> gradients = layer.gradients(layer.weight(1), direction, 1);
    ASSERT_EQ(gradients.size(), parameters.size());
    const auto loss_of = [&](const LayerCodes& of) {
      return weight_of(of).to(at::kDouble).mul(direction).sum().item<double>();
    };
    size_t next = 0;
    for (size_t f = 0; f < codes.factors.size(); ++f) {
      const auto* planes = std::get_if<RegionCodes>(&codes.factors[f]);
      if (planes == nullptr) continue;
      const at::Tensor of_latent = gradients[next].reshape(-1), of_scale = gradients[next + 1];
      next += 2;
      for (int64_t row = 0; row < planes->shape.rows; row += 7) {
        // The loss is linear in one scale and in one weight; a flip moves it by 2 scales.
        const auto moved = [&](const auto& change) {
          LayerCodes other = codes;
          change(std::get<RegionCodes>(other.factors[f]));
          return loss_of(other) - loss_of(codes);
        };
        const double by_scale = moved([&](RegionCodes& c) { c.scale[row] *= 2; });
        EXPECT_NEAR(of_scale.view(-1)[row].item<double>(), by_scale,
                    1e-3 * std::fabs(by_scale) + 1e-3);
        const int64_t at = row * planes->shape.cols + row % planes->shape.cols;
        const double by_flip = moved([&](RegionCodes& c) { c.code[at] ^= 1; });
        const double change = (planes->code[at] != 0 ? -2 : 2) * planes->scale[row];
        EXPECT_NEAR(of_latent[at].item<double>(), by_flip / change, 1e-2);
      }
    }
  }
}

// Of a trellis the scales of rows learn, and nothing else.
TEST(LayerTrainable, ScalesOfATrellis) {
  const LayerCodes start = on_trellis(41);
  // The goal: the same paths with other scales.
  LayerCodes goal = start;
  auto& scales = std::get<TrellisCodes>(goal.factors[1]).scale;
  for (size_t row = 0; row < scales.size(); ++row) {
    scales[row] = round_to_half(scales[row] * (row % 2 == 0 ? 1.2f : 0.8f));
  }
  const at::Tensor target = weight_of(goal);
  LayerTrainable layer(start, target, {0.02, 0.02}, 0.05, kCpu, 2);
  const std::vector<Parameter> parameters = layer.parameters();
  ASSERT_EQ(parameters.size(), 1u);
  EXPECT_EQ(parameters[0].name, "1.scale");
  AdamW optimizer(parameters);
  const auto error = [&] { return layer.weight(2).sub(target); };
  const double before = error().square().sum().item<double>();
  for (int step = 1; step <= 60; ++step) {
    optimizer.step(layer.gradients(layer.weight(2), error(), 2), step, 1 - step / 61.0, 2);
    layer.refresh(2);
  }
  EXPECT_LT(error().square().sum().item<double>(), 0.01 * before);
  const LayerCodes learned = layer.codes(1);
  check_codes(learned);
  EXPECT_EQ(std::get<TrellisCodes>(learned.factors[1]).states,
            std::get<TrellisCodes>(start.factors[1]).states);
  EXPECT_TRUE(test::close(dequantize(learned), values(layer.weight(1)), {.absolute = 1e-4}));
  LayerTrainable other(start, target, {0.02, 0.02}, 0.05, kCpu, 1);
  other.restore(layer.state());
  EXPECT_EQ(dequantize(other.codes(1)), dequantize(learned));
  LayerTrainable frozen(start, target, {0.02, 0}, 0.05, kCpu, 1);
  EXPECT_TRUE(frozen.parameters().empty());
}

TEST(LayerTrainable, LearnsAndComesBackFromItsState) {
  for (const bool two : {false, true}) {
    const LayerCodes start = two ? binary(31) : rotated(31);
    const at::Tensor target = random_matrix(40, 96, 33);
    LayerTrainable layer(start, target, {0.02, 0.02}, 0.05, kCpu, 2);
    AdamW optimizer(layer.parameters());
    const auto error = [&] { return layer.weight(2).sub(target); };
    const double before = error().square().sum().item<double>();
    for (int step = 1; step <= 150; ++step) {
      optimizer.step(layer.gradients(layer.weight(2), error(), 2), step, 1 - step / 151.0, 2);
      layer.refresh(2);
    }
    EXPECT_LT(error().square().sum().item<double>(), 0.7 * before) << two;
    const LayerCodes learned = layer.codes(1);
    check_codes(learned);
    LayerTrainable other(start, target, {0.02, 0.02}, 0.05, kCpu, 1);
    other.restore(layer.state());
    EXPECT_EQ(dequantize(other.codes(1)), dequantize(learned));
    EXPECT_TRUE(other.weight(1).equal(layer.weight(3)));
  }
}

}  // namespace
}  // namespace billm
