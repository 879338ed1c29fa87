// The GEMV kernel, all of it, on an emulated GPU: every kind of layer, every number of tokens,
// ragged rows and columns, against the layer's own weights.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/layer_memory.h"
#include "support/compare.h"
#include "support/cuda_testing.h"
#include "support/emulated_launches.h"
#include "support/sanitized.h"

namespace billm::test {
namespace {

namespace cuda = kernels::cuda;

std::vector<float> run_gemv(const CudaLayer& layer, const Numbers& x, int64_t x_stride, int tokens,
                            const cuda::DeviceLimits& limits, WarpOrder order,
                            bool half_result = false) {
  cuda::GemvParams params;
  params.layer = layer.layer;
  const char* problem = cuda::plan_gemv(params.layer, tokens, limits, &params.plan);
  EXPECT_EQ(problem, nullptr) << problem;
  if (problem != nullptr) return {};
  const int64_t rows = layer.layer.rows;
  std::vector<float> y(static_cast<size_t>(rows * tokens), NAN);
  std::vector<uint16_t> y_halves(y.size(), 0x7e00);
  params.x = x.data();
  params.x_halves = x.is_half;
  params.x_stride = x_stride;
  params.y = half_result ? static_cast<void*>(y_halves.data()) : y.data();
  params.y_halves = half_result;
  params.y_stride = rows;
  EXPECT_EQ(EmulatedLaunches(order).gemv(params), nullptr);
  for (size_t i = 0; half_result && i < y.size(); ++i) y[i] = half_to_float(y_halves[i]);
  return y;
}

constexpr cuda::DeviceLimits kSmall = {.sm_count = 2, .shared_bytes = 99 * 1024};

TEST(CudaGemv, EveryKindOfLayer) {
  uint32_t seed = 0;
  for (const RegionFormat& shape : cuda_shapes(2 * kThinned)) {
    SCOPED_TRACE(text_of(shape));
    const CudaLayer layer(shape, ++seed);
    const int tokens = 1 + static_cast<int>(seed % cuda::kMaxTokens);
    const Numbers x = random_x(tokens, shape.cols, seed % 2 == 0, seed);
    const auto y = run_gemv(layer, x, shape.cols, tokens, kSmall, WarpOrder::kForward);
    ASSERT_NO_FATAL_FAILURE(expect_product(layer, x, shape.cols, tokens, y, kFixedError));
  }
}

// Rows and columns of every remainder; the shapes above have few.
TEST(CudaGemv, RaggedRowsAndColumns) {
  for (int i = 0; i < 200; i += kThinned) {
    RegionFormat shape;
    shape.rows = 1 + i;
    shape.cols = 1 + (i * 37) % 300;
    shape.classes = 1 + i % 3;
    shape.salient_classes = i % 4 > shape.classes ? 0 : i % 4;
    if (i % 5 == 1) shape.nm = {4, 8};
    shape.block_size = i % 2 == 0 ? 128 : 40;
    SCOPED_TRACE(text_of(shape));
    const CudaLayer layer(shape, static_cast<uint32_t>(i));
    const int tokens = 1 + i % cuda::kMaxTokens;
    const Numbers x = random_x(tokens, shape.cols + 3, false, static_cast<uint32_t>(i));
    const auto y = run_gemv(layer, x, shape.cols + 3, tokens, kSmall, WarpOrder::kForward);
    ASSERT_NO_FATAL_FAILURE(expect_product(layer, x, shape.cols + 3, tokens, y, kFixedError));
  }
}

std::vector<RegionFormat> wide_shapes() {
  RegionFormat plain;
  plain.rows = 70;
  plain.cols = 6000;
  RegionFormat salient = plain;
  salient.classes = 1;
  RegionFormat scattered = plain;
  scattered.salient_classes = 0;
  scattered.scattered = true;
  scattered.integer_bits = 8;
  RegionFormat integers;
  integers.rows = 33;
  integers.cols = 5000;
  integers.classes = integers.salient_classes = 0;
  integers.integer_bits = 8;
  integers.scale_format = ScaleFormat::kF16;
  return {plain, salient, scattered, integers};
}

// x that does not fit into shared memory at once, and the same sums in any order of the warps.
TEST(CudaGemv, ChunksOfColumns) {
  for (const RegionFormat& shape : wide_shapes()) {
    const CudaLayer layer(shape, 5);
    for (const int tokens : {1, 2, 8}) {
      if (kThinned > 1 && tokens == 2) continue;
      SCOPED_TRACE(text_of(shape) + " tokens " + std::to_string(tokens));
      const Numbers x = random_x(tokens, shape.cols, false, 6);
      cuda::GemvPlan plan;
      cuda::DeviceLimits limits = kSmall;
      ASSERT_EQ(cuda::plan_gemv(layer.layer, tokens, limits, &plan), nullptr);
      // Room for three strips of x.
      limits.shared_bytes = plan.x_offset + 3 * 260 * plan.block_tokens * plan.token_blocks +
                            plan.shared_bytes - plan.scattered_offset;
      ASSERT_EQ(cuda::plan_gemv(layer.layer, tokens, limits, &plan), nullptr);
      ASSERT_EQ(plan.chunk_strips, 3);
      const auto y = run_gemv(layer, x, shape.cols, tokens, limits, WarpOrder::kForward);
      ASSERT_NO_FATAL_FAILURE(expect_product(layer, x, shape.cols, tokens, y, kFixedError));
      EXPECT_TRUE(close(run_gemv(layer, x, shape.cols, tokens, limits, WarpOrder::kBackward), y));
    }
  }
}

TEST(CudaGemv, HalfResults) {
  RegionFormat shape;
  shape.rows = 100;
  shape.cols = 300;
  const CudaLayer layer(shape, 1);
  const Numbers x = random_x(3, shape.cols, true, 2);
  const auto y = run_gemv(layer, x, shape.cols, 3, kSmall, WarpOrder::kForward);
  auto halves = y;
  for (float& value : halves) value = round_to_half(value);
  EXPECT_TRUE(close(run_gemv(layer, x, shape.cols, 3, kSmall, WarpOrder::kForward, true), halves));
}

// What is not finite in a token makes its y NaN and leaves the others alone; all zeros give zeros.
TEST(CudaGemv, WhatIsNotFiniteShows) {
  RegionFormat shape;
  shape.rows = 40;
  shape.cols = 300;
  const CudaLayer layer(shape, 1);
  Numbers x = random_x(4, shape.cols, false, 2);
  x.floats[7] = NAN;
  x.floats[static_cast<size_t>(shape.cols) + 299] = INFINITY;
  std::fill_n(x.floats.begin() + 2 * shape.cols, shape.cols, 0.0f);
  const auto y = run_gemv(layer, x, shape.cols, 4, kSmall, WarpOrder::kForward);
  for (int64_t row = 0; row < shape.rows; ++row) {
    EXPECT_TRUE(std::isnan(y[static_cast<size_t>(row)]));
    EXPECT_TRUE(std::isnan(y[static_cast<size_t>(shape.rows + row)]));
    EXPECT_EQ(y[static_cast<size_t>(2 * shape.rows + row)], 0);
    EXPECT_TRUE(std::isfinite(y[static_cast<size_t>(3 * shape.rows + row)]));
  }
}

// A layer in one piece of memory, as on a device: no part beyond its end, and nothing of the view
// is read afterwards.
TEST(CudaGemv, LayerInItsOwnMemory) {
  uint32_t seed = 0;
  for (const RegionFormat& shape : cuda_shapes(17 * kThinned)) {
    SCOPED_TRACE(text_of(shape));
    auto layer = std::make_unique<CudaLayer>(shape, ++seed);
    const Numbers x = random_x(2, shape.cols, false, seed);
    const auto expected = run_gemv(*layer, x, shape.cols, 2, kSmall, WarpOrder::kForward);
    const int64_t bytes = cuda::layer_memory_bytes(layer->tiles.view(), layer->plan);
    ASSERT_EQ(bytes % cuda::kPartAlignment, 0);
    const std::unique_ptr<uint8_t, void (*)(void*)> memory(
        static_cast<uint8_t*>(std::aligned_alloc(cuda::kPartAlignment, static_cast<size_t>(bytes))),
        std::free);
    int copies = 0;
    const cuda::CopyIn copy = [](void* to, const void* from, int64_t count, void* context) {
      std::memcpy(to, from, static_cast<size_t>(count));
      int& left = *static_cast<int*>(context);
      return ++left == 0 ? "no more" : nullptr;
    };
    cuda::CudaLayer* made = nullptr;
    ASSERT_EQ(cuda::make_layer(layer->tiles.view(), memory.get(), kSmall, 0, copy, &copies, &made),
              nullptr);
    const std::unique_ptr<cuda::CudaLayer> owned(made);
    EXPECT_GT(copies, 10);
    for (int after = 1; after <= copies; ++after) {
      int left = -after;
      cuda::CudaLayer* none = nullptr;
      EXPECT_STREQ(
          cuda::make_layer(layer->tiles.view(), memory.get(), kSmall, 0, copy, &left, &none),
          "no more");
      EXPECT_EQ(none, nullptr);
      EXPECT_EQ(left, 0) << "copied on";
    }
    layer.reset();
    EmulatedLaunches launches;
    std::vector<float> y(static_cast<size_t>(2 * shape.rows), NAN);
    cuda::CudaProduct product;
    product.layer = made;
    product.x = {const_cast<void*>(x.data()), shape.cols, false};
    product.y = {y.data(), shape.rows, false};
    product.tokens = 2;
    ASSERT_EQ(cuda::run_gemv(product, launches), nullptr);
    EXPECT_TRUE(close(y, expected));
  }
}

TEST(CudaGemv, RefusesOtherNumbersOfTokens) {
  const CudaLayer layer(wide_shapes()[0], 1);
  cuda::GemvPlan plan;
  EXPECT_STREQ(cuda::plan_gemv(layer.layer, 0, kSmall, &plan), "gemv: expected 1 to 8 tokens");
  EXPECT_STREQ(cuda::plan_gemv(layer.layer, 9, kSmall, &plan), "gemv: expected 1 to 8 tokens");
}

}  // namespace
}  // namespace billm::test
