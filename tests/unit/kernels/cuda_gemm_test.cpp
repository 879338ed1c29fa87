// The GEMM kernels on an emulated GPU: fused, and W decoded for a library's product.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/cuda/gemm_body.h"
#include "kernels/cuda/launch.h"
#include "support/compare.h"
#include "support/cuda_emulator.h"
#include "support/cuda_testing.h"

namespace billm::test {
namespace {

namespace cuda = kernels::cuda;

constexpr cuda::DeviceLimits kDevice = {.sm_count = 2, .shared_bytes = 163 * 1024};

struct Prepared {
  std::vector<uint16_t> x;
  std::vector<float> scale;
};

Prepared prepare(const CudaLayer& layer, const Numbers& x, int64_t tokens, int64_t padded,
                 bool in_blocks) {
  Prepared result;
  result.x.assign(static_cast<size_t>(padded * layer.layer.strips * 128), 0x7e00);
  result.scale.assign(static_cast<size_t>(padded), NAN);
  cuda::TokensParams params;
  params.layer = layer.layer;
  params.x = x.data();
  params.x_halves = x.is_half;
  params.x_stride = layer.layer.cols;
  params.tokens = tokens;
  params.in_blocks = in_blocks;
  params.out = result.x.data();
  params.scale = result.scale.data();
  run_grid(static_cast<int>(padded), 1, cuda::kPrepareThreads, 32, WarpOrder::kForward,
           [&](EmulatedThread& thread) { cuda::prepare_token(thread, params); });
  return result;
}

std::vector<float> run_gemm(const CudaLayer& layer, const Numbers& x, int tokens,
                            const cuda::DeviceLimits& limits, WarpOrder order,
                            bool half_result = false) {
  cuda::GemmParams params;
  params.layer = layer.layer;
  const int coefficients = cuda::strip_coefficients(layer.layer, layer.layer.schedules[2].of_strip);
  const char* problem = cuda::plan_gemm(layer.layer, tokens, coefficients, limits, &params.plan);
  EXPECT_EQ(problem, nullptr) << problem;
  if (problem != nullptr) return {};
  const Prepared prepared = prepare(layer, x, tokens, params.plan.padded_tokens, true);
  std::vector<float> y(static_cast<size_t>(layer.layer.rows * tokens), NAN);
  std::vector<uint16_t> halves(y.size(), 0x7e00);
  params.x = prepared.x.data();
  params.scale = prepared.scale.data();
  params.y = half_result ? static_cast<void*>(halves.data()) : y.data();
  params.y_halves = half_result;
  params.y_stride = layer.layer.rows;
  params.tokens = tokens;
  run_grid(params.plan.grid_rows, params.plan.grid_tokens, cuda::kGemmThreads,
           params.plan.shared_bytes, order, [&](EmulatedThread& thread) {
             if (params.plan.token_blocks == 16) {
               cuda::gemm_body<16>(thread, params);
             } else {
               cuda::gemm_body<8>(thread, params);
             }
           });
  for (size_t i = 0; half_result && i < y.size(); ++i) y[i] = half_to_float(halves[i]);
  return y;
}

// W decoded, then the product as a library would make it.
std::vector<float> run_dense(const CudaLayer& layer, const Numbers& x, int tokens) {
  const int64_t columns = int64_t{layer.layer.strips} * 128, rows = layer.layer.rows;
  std::vector<uint16_t> w(static_cast<size_t>(rows * columns), 0x7e00);
  const cuda::DenseParams params = {layer.layer, w.data()};
  const auto blocks = [](int64_t items) {
    return static_cast<int>((items + cuda::kDenseWarps - 1) / cuda::kDenseWarps);
  };
  run_grid(blocks(layer.layer.tiles() * layer.layer.strips), 1, cuda::kDenseWarps * 32, 0,
           WarpOrder::kForward, [&](EmulatedThread& thread) { cuda::dense_body(thread, params); });
  if (layer.layer.scattered.start != nullptr) {
    run_grid(blocks(rows), 1, cuda::kDenseWarps * 32, 0, WarpOrder::kForward,
             [&](EmulatedThread& thread) { cuda::dense_scattered_body(thread, params); });
  }
  const Prepared prepared = prepare(layer, x, tokens, tokens, false);
  std::vector<float> y(static_cast<size_t>(rows * tokens), NAN);
  for (int token = 0; token < tokens; ++token) {
    for (int64_t row = 0; row < rows; ++row) {
      double sum = 0;
      for (int64_t i = 0; i < columns; ++i) {
        sum += double{half_to_float(w[static_cast<size_t>(row * columns + i)])} *
               half_to_float(prepared.x[static_cast<size_t>(token * columns + i)]);
      }
      y[static_cast<size_t>(token * rows + row)] = static_cast<float>(sum * layer.layer.unit);
    }
  }
  const cuda::ScaleParams scale = {prepared.scale.data(), y.data(), rows, rows, false};
  run_grid(tokens, 1, cuda::kPrepareThreads, 0, WarpOrder::kForward,
           [&](EmulatedThread& thread) { cuda::scale_body(thread, scale); });
  return y;
}

TEST(CudaGemm, EveryKindOfLayerFused) {
  uint32_t seed = 0;
  for (const LinearShape& shape : cuda_shapes(9)) {
    if (shape.scattered) continue;
    SCOPED_TRACE(text_of(shape));
    const CudaLayer layer(shape, ++seed);
    const int tokens = 1 + static_cast<int>(seed * 7 % 20);
    const Numbers x = random_x(tokens, shape.cols, seed % 2 == 0, seed);
    const auto y = run_gemm(layer, x, tokens, kDevice, WarpOrder::kForward);
    ASSERT_NO_FATAL_FAILURE(expect_product(layer, x, shape.cols, tokens, y, kHalfError));
  }
}

TEST(CudaGemm, EveryKindOfLayerDense) {
  uint32_t seed = 0;
  for (const LinearShape& shape : cuda_shapes(4)) {
    SCOPED_TRACE(text_of(shape));
    const CudaLayer layer(shape, ++seed);
    const int tokens = 1 + static_cast<int>(seed % 5);
    const Numbers x = random_x(tokens, shape.cols, seed % 2 == 0, seed);
    const auto y = run_dense(layer, x, tokens);
    ASSERT_NO_FATAL_FAILURE(expect_product(layer, x, shape.cols, tokens, y, kHalfError));
  }
}

// More rows and tokens than a block has, for both sizes of blocks, in any order of warps.
TEST(CudaGemm, SeveralBlocks) {
  LinearShape shape;
  shape.rows = 150;
  shape.cols = 200;
  const CudaLayer layer(shape, 3);
  for (const int tokens : {63, 65, 130}) {
    const Numbers x = random_x(tokens, shape.cols, true, 4);
    for (const int sms : {1, 100}) {  // with many, blocks of 64 tokens instead of 128
      const cuda::DeviceLimits limits = {.sm_count = sms, .shared_bytes = 163 * 1024};
      const auto y = run_gemm(layer, x, tokens, limits, WarpOrder::kForward);
      ASSERT_NO_FATAL_FAILURE(expect_product(layer, x, shape.cols, tokens, y, kHalfError));
      EXPECT_TRUE(close(run_gemm(layer, x, tokens, limits, WarpOrder::kBackward), y));
    }
  }
}

TEST(CudaGemm, HalfResults) {
  LinearShape shape;
  shape.rows = 40;
  shape.cols = 130;
  const CudaLayer layer(shape, 3);
  const Numbers x = random_x(5, shape.cols, true, 4);
  auto y = run_gemm(layer, x, 5, kDevice, WarpOrder::kForward);
  for (float& value : y) value = round_to_half(value);
  EXPECT_TRUE(close(run_gemm(layer, x, 5, kDevice, WarpOrder::kForward, true), y));
}

// Activations beyond the halves' range are scaled down; one that is not finite shows.
TEST(CudaGemm, LargeActivations) {
  LinearShape shape;
  shape.rows = 40;
  shape.cols = 130;
  const CudaLayer layer(shape, 3);
  Numbers x = random_x(4, shape.cols, false, 4);
  for (int64_t i = 0; i < shape.cols; ++i) {
    x.floats[static_cast<size_t>(i)] *= 1e6f;
    x.floats[static_cast<size_t>(shape.cols + i)] *= 1e30f;
  }
  const auto fused = run_gemm(layer, x, 4, kDevice, WarpOrder::kForward);
  ASSERT_NO_FATAL_FAILURE(expect_product(layer, x, shape.cols, 4, fused, kHalfError));
  const auto dense = run_dense(layer, x, 4);
  ASSERT_NO_FATAL_FAILURE(expect_product(layer, x, shape.cols, 4, dense, kHalfError));
  x.floats[3] = INFINITY;
  const auto y = run_gemm(layer, x, 4, kDevice, WarpOrder::kForward);
  for (int64_t row = 0; row < 4 * shape.rows; ++row) {
    EXPECT_EQ(std::isfinite(y[static_cast<size_t>(row)]), row >= shape.rows) << row;
  }
}

TEST(CudaGemm, RefusesScatteredIntegers) {
  LinearShape shape;
  shape.rows = 10;
  shape.cols = 100;
  shape.salient_classes = 0;
  shape.scattered = true;
  shape.integer_bits = 8;
  const CudaLayer layer(shape, 1);
  cuda::GemmPlan plan;
  EXPECT_STREQ(cuda::plan_gemm(layer.layer, 5, 10, kDevice, &plan),
               "gemm: scattered integers need the dense path");
}

}  // namespace
}  // namespace billm::test
