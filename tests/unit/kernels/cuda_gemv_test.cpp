// The GEMV kernel, all of it, on an emulated GPU: every kind of layer, every number of tokens,
// ragged rows and columns, against the layer's own weights.
#include <gtest/gtest.h>

#include <cmath>

#include "cuda_testing.h"
#include "kernels/cuda/gemv_body.h"
#include "kernels/cuda/launch.h"
#include "support/compare.h"
#include "support/cuda_emulator.h"

namespace billm::test {
namespace {

namespace cuda = kernels::cuda;

// One instance of the kernel for each row of kPlaneSets, as gemv.cu has them.
template <int TokenBlocks, int Index = 0>
void run_set(EmulatedThread& thread, const cuda::GemvParams& params) {
  if constexpr (Index < cuda::kPlaneSetCount) {
    if (params.plan.plane_set == Index) {
      cuda::gemv_body<TokenBlocks, cuda::kPlaneSets[Index]>(thread, params);
    } else {
      run_set<TokenBlocks, Index + 1>(thread, params);
    }
  } else {
    FAIL() << "no kernel " << params.plan.plane_set;
  }
}

struct Numbers {
  std::vector<float> floats;
  std::vector<uint16_t> halves;
  bool is_half;
  const void* data() const {
    return is_half ? static_cast<const void*>(halves.data()) : floats.data();
  }
};

// x [tokens, stride]; with halves, floats hold what the halves say.
Numbers random_x(int64_t tokens, int64_t stride, bool halves, uint32_t seed) {
  Numbers x{random_normal(tokens * stride, seed), {}, halves};
  if (halves) {
    for (float& value : x.floats) {
      x.halves.push_back(float_to_half(value));
      value = half_to_float(x.halves.back());
    }
  }
  return x;
}

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
  run_grid(params.plan.blocks, 1, params.plan.threads, params.plan.shared_bytes, order,
           [&](EmulatedThread& thread) {
             if (params.plan.token_blocks == 1) {
               run_set<1>(thread, params);
             } else {
               run_set<2>(thread, params);
             }
           });
  for (size_t i = 0; half_result && i < y.size(); ++i) y[i] = half_to_float(y_halves[i]);
  return y;
}

// y against W x in double. x is rounded to 1/65,024 of the largest of its strip; the rest is fp32,
// in which a weight is a sum of up to nine numbers as large as the largest level of its row.
void expect_product(const CudaLayer& layer, const Numbers& x, int64_t x_stride, int tokens,
                    const std::vector<float>& y, double relative = 0) {
  const LinearShape& shape = layer.linear.shape;
  ASSERT_EQ(y.size(), static_cast<size_t>(shape.rows * tokens));
  const auto scale = [&](int64_t col) {
    return layer.linear.column_scale.empty() ? 1.0 : double{layer.linear.column_scale[col]};
  };
  double level = 0;
  for (const float value : layer.linear.scale) level = std::max(level, std::fabs(double{value}));
  for (const float value : layer.linear.step) level = std::max(level, 255 * double{value});
  for (const float value : layer.linear.offset) level = std::max(level, std::fabs(double{value}));
  for (int token = 0; token < tokens; ++token) {
    const float* input = x.floats.data() + token * x_stride;
    double largest = 0, sum = 0;
    for (int64_t col = 0; col < shape.cols; ++col) {
      largest = std::max(largest, std::fabs(input[col] * scale(col)));
      sum += std::fabs(input[col] * scale(col));
    }
    for (int64_t row = 0; row < shape.rows; ++row) {
      double expected = 0, rounding = 0, size = 0;
      for (int64_t col = 0; col < shape.cols; ++col) {
        const double weight = layer.w[static_cast<size_t>(row * shape.cols + col)];
        expected += weight * input[col];
        size += std::fabs(weight * input[col]);
        rounding += std::fabs(weight) / scale(col);
      }
      const double bound = rounding * largest / (2 * cuda::kLargestFixed) * 1.01 + 3e-6 * size +
                           5e-7 * level * sum + relative * std::fabs(expected) + 1e-30;
      const double actual = y[static_cast<size_t>(token * shape.rows + row)];
      ASSERT_LE(std::fabs(actual - expected), bound)
          << "token " << token << " of " << tokens << " row " << row << ": " << actual
          << ", expected " << expected;
    }
  }
}

constexpr cuda::DeviceLimits kSmall = {.sm_count = 2, .shared_bytes = 99 * 1024};

TEST(CudaGemv, EveryKindOfLayer) {
  uint32_t seed = 0;
  for (const LinearShape& shape : cuda_shapes(7)) {
    SCOPED_TRACE(text_of(shape));
    const CudaLayer layer(shape, ++seed);
    const int tokens = 1 + static_cast<int>(seed % cuda::kMaxTokens);
    const Numbers x = random_x(tokens, shape.cols, seed % 2 == 0, seed);
    const auto y = run_gemv(layer, x, shape.cols, tokens, kSmall, WarpOrder::kForward);
    ASSERT_NO_FATAL_FAILURE(expect_product(layer, x, shape.cols, tokens, y));
  }
}

}  // namespace
}  // namespace billm::test
