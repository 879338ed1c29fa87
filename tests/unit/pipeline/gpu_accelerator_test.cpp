// What a GPU does of quantizing, on ATen's CPU device: the factor against the CPU's kernel, and the
// report's error against sums in double.
#include "src/pipeline/gpu_accelerator.h"

#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "billm/base/error.h"
#include "billm/model/runtime.h"
#include "billm/quantize/hessian.h"
#include "kernels/cpu/cholesky.h"
#include "src/pipeline/layer_error.h"
#include "support/compare.h"
#include "support/random_layer.h"

namespace billm {
namespace {

const c10::Device kCpu(c10::kCPU);

// The damped matrix in double, rows `stride` apart.
std::vector<double> damped(const Hessian& h, int64_t stride) {
  std::vector<double> matrix(static_cast<size_t>(h.width * stride));
  for (int64_t i = 0; i < h.width; ++i) {
    for (int64_t j = 0; j < h.width; ++j) matrix[i * stride + j] = h.matrix[i * h.width + j];
    matrix[i * stride + i] += h.lambda + (h.dead[i] != 0 ? 1.0 : 0.0);
  }
  return matrix;
}

TEST(GpuAccelerator, FlippedCholeskyIsTheUpperFactor) {
  init_torch();
  for (const int64_t n : {1, 5, 64, 130, 300}) {
    SCOPED_TRACE(n);
    const Hessian h = make_hessian(test::correlated_stats(n, 2 * n, 3), true, 0.01, 1);
    const int64_t stride = (n + 7) / 8 * 8;
    std::vector<double> expected = damped(h, stride), matrix = damped(h, n);
    ASSERT_TRUE(kernels::factor_upper(expected.data(), n, stride, 1));
    const at::Tensor r =
        factor_upper(at::from_blob(matrix.data(), {n, n}, at::kDouble)).contiguous();
    ASSERT_TRUE(r.defined());
    const double* actual = r.const_data_ptr<double>();
    double largest = 0, worst = 0;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        if (j < i) {
          ASSERT_EQ(actual[i * n + j], 0.0);
        }
        largest = std::max(largest, std::fabs(expected[i * stride + j]));
        worst = std::max(worst, std::fabs(actual[i * n + j] - expected[i * stride + j]));
        ASSERT_TRUE(std::isfinite(actual[i * n + j]));
      }
    }
    EXPECT_LE(worst, 1e-10 * largest);
  }
}

TEST(GpuAccelerator, HessianAsTheCpus) {
  init_torch();
  const GpuAccelerator accelerator(kCpu, nullptr);
  CalibrationStats stats = test::correlated_stats(100, 200, 3);
  for (int64_t j = 0; j < 100; ++j) stats.xtx[7 * 100 + j] = stats.xtx[j * 100 + 7] = 0;  // dead
  const Hessian expected = make_hessian(stats, true, 0.01, 1);
  const Hessian h = make_hessian(stats, true, 0.01, 1, &accelerator);
  EXPECT_EQ(h.matrix, expected.matrix);
  EXPECT_EQ(h.dead, expected.dead);
  EXPECT_EQ(h.lambda, expected.lambda);
  const double scale = test::root_mean_square(expected.factor);
  EXPECT_TRUE(test::close(h.factor, expected.factor, {.absolute = 1e-7 * scale, .relative = 1e-6}));
  EXPECT_TRUE(test::close(h.diagonal, expected.diagonal, {.relative = 1e-6}));

  std::vector<int64_t> order(100);
  std::iota(order.rbegin(), order.rend(), 0);
  std::swap(order[3], order[50]);
  EXPECT_TRUE(test::close(permuted_factor(h, order, 1, &accelerator), permuted_factor(h, order, 1),
                          {.absolute = 1e-7 * scale, .relative = 1e-6}));
}

// Damping is raised as on the CPU, and the same error ends it.
TEST(GpuAccelerator, MatricesThatAreNotPositive) {
  init_torch();
  const GpuAccelerator accelerator(kCpu, nullptr);
  CalibrationStats stats{2, 2, {1, 2.5f, 2.5f, 1}};
  const Hessian expected = make_hessian(stats, true, 0.01, 1);
  const Hessian h = make_hessian(stats, true, 0.01, 1, &accelerator);
  EXPECT_GT(h.retries, 0);
  EXPECT_EQ(h.retries, expected.retries);
  EXPECT_EQ(h.lambda, expected.lambda);
  stats.xtx = {1, 1e9f, 1e9f, 1};
  EXPECT_THROW(make_hessian(stats, true, 0.01, 1, &accelerator), Error);
  stats.xtx = {1, INFINITY, INFINITY, 1};
  EXPECT_THROW(make_hessian(stats, true, 0.01, 1, &accelerator), Error);
}

TEST(LayerError, IsTheQuadraticForm) {
  init_torch();
  constexpr int64_t kRows = 150, kCols = 300;  // several tiles of rows and of columns
  const Hessian h = make_hessian(test::correlated_stats(kCols, 500, 2), false, 0.01, 1);
  std::vector<float> w = test::random_normal(kRows * kCols, 1),
                     q = test::random_normal(kRows * kCols, 5);
  const std::vector<float> zero(w.size(), 0.0f);
  const double expected =
      test::layer_error(w, q, h.matrix, 0, kCols) / test::layer_error(w, zero, h.matrix, 0, kCols);
  const auto tensor = [&](std::vector<float>& data) {
    return at::from_blob(data.data(), {kRows, kCols}, at::kFloat);
  };
  const double error = layer_error(tensor(w), tensor(q), hessian_matrix(h, kCpu), 2);
  EXPECT_NEAR(error, expected, 1e-5 * expected);
}

}  // namespace
}  // namespace billm
