// The GEMM kernels on an emulated GPU: fused, and W decoded for a library's product.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "kernels/cuda/launch.h"
#include "support/compare.h"
#include "support/cuda_testing.h"
#include "support/emulated_launches.h"
#include "support/sanitized.h"

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
  EXPECT_EQ(EmulatedLaunches().prepare(params, padded), nullptr);
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
  EXPECT_EQ(EmulatedLaunches(order).gemm(params), nullptr);
  for (size_t i = 0; half_result && i < y.size(); ++i) y[i] = half_to_float(halves[i]);
  return y;
}

// As products.cpp makes it, with its workspace; `path` as it chooses if it is kAuto.
std::vector<float> run_product(const CudaLayer& layer, const Numbers& x, int tokens,
                               cuda::CudaGemmPath path, bool blas = true, int major = 0) {
  EmulatedLaunches launches(WarpOrder::kForward, blas);
  cuda::CudaLayer placed;
  placed.layer = layer.layer;
  placed.limits = kDevice;
  placed.limits.major = major;
  placed.coefficients = cuda::strip_coefficients(layer.layer, layer.layer.schedules[2].of_strip);
  cuda::CudaProduct product;
  std::vector<float> y(static_cast<size_t>(layer.layer.rows * tokens), NAN);
  product.layer = &placed;
  product.x = {const_cast<void*>(x.data()), layer.layer.cols, x.is_half};
  product.y = {y.data(), layer.layer.rows, false};
  product.tokens = tokens;
  int64_t bytes = 0;
  EXPECT_EQ(cuda::gemm_workspace(product, path, launches, &bytes), nullptr);
  struct alignas(256) Line {
    uint8_t bytes[256];
  };
  std::vector<Line> workspace(static_cast<size_t>(bytes / 256));
  if (!workspace.empty()) std::memset(workspace.data(), 0xff, workspace.size() * 256);
  const char* problem =
      cuda::run_gemm(product, path, bytes > 0 ? workspace.data() : nullptr, bytes, launches);
  EXPECT_EQ(problem, nullptr) << problem;
  return y;
}

std::vector<float> run_dense(const CudaLayer& layer, const Numbers& x, int tokens) {
  return run_product(layer, x, tokens, cuda::CudaGemmPath::kDense);
}

TEST(CudaGemm, EveryKindOfLayerFused) {
  uint32_t seed = 0;
  for (const RegionFormat& shape : cuda_shapes(13 * kThinned)) {
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
  for (const RegionFormat& shape : cuda_shapes(4 * kThinned)) {
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
  RegionFormat shape;
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
  RegionFormat shape;
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
  RegionFormat shape;
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

// Which way is taken, with cuBLAS and without, on devices old and new.
TEST(CudaGemm, Chooses) {
  RegionFormat shape, scattered;
  shape.rows = scattered.rows = 40;
  shape.cols = scattered.cols = 130;
  scattered.salient_classes = 0;
  scattered.scattered = true;
  scattered.integer_bits = 8;
  using Path = cuda::CudaGemmPath;
  const auto choose = [](const CudaLayer& layer, int64_t tokens, bool blas, int major) {
    cuda::DeviceLimits limits = kDevice;
    limits.major = major;
    return cuda::choose_gemm(
        layer.layer, tokens,
        cuda::strip_coefficients(layer.layer, layer.layer.schedules[2].of_strip), limits, blas);
  };
  const CudaLayer plain(shape, 1), with_list(scattered, 1);
  for (const int major : {8, 9, 10, 12}) {
    const bool newer = major == 9 || major == 10;
    for (const bool blas : {false, true}) {
      EXPECT_EQ(choose(plain, 32, blas, major), Path::kGemv);
      EXPECT_EQ(choose(plain, 33, blas, major), Path::kFused);
      EXPECT_EQ(choose(plain, 1023, blas, major), Path::kFused);
      EXPECT_EQ(choose(plain, 1024, blas, major), newer && blas ? Path::kDense : Path::kFused);
      EXPECT_EQ(choose(with_list, 33, blas, major), blas ? Path::kDense : Path::kGemv);
    }
  }
  for (const CudaLayer* layer : {&plain, &with_list}) {  // and what is chosen works
    for (const bool blas : {false, true}) {
      const Numbers x = random_x(35, shape.cols, false, 4);
      const auto y = run_product(*layer, x, 35, Path::kAuto, blas, 9);
      ASSERT_NO_FATAL_FAILURE(expect_product(*layer, x, shape.cols, 35, y, kHalfError));
    }
  }
}

TEST(CudaGemm, RefusesScatteredIntegers) {
  RegionFormat shape;
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
