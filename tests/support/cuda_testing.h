// Layers for the tests of CUDA kernels: a random layer in the kernels' order, in host memory as it
// would be on a GPU.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "billm/base/half.h"
#include "billm/pack/plane_tiles.h"
#include "kernels/cuda/decode.h"
#include "kernels/cuda/layer_plan.h"
#include "support/random_layer.h"

namespace billm::test {

struct CudaLayer {
  CudaLayer(const RegionFormat& shape, uint32_t seed)
      : linear(random_codes(shape, seed)),
        w(dequantize(linear)),
        tiles(pack(linear), kernels::cuda::kCudaTileOrder, 1) {
    const char* problem = kernels::cuda::plan_layer(tiles.view(), &plan);
    if (problem != nullptr) throw std::runtime_error(problem);
    layer = kernels::cuda::layer_in_host_memory(tiles.view(), plan);
  }

  RegionCodes linear;
  std::vector<float> w;  // [rows, cols]
  PlaneTiles tiles;
  kernels::cuda::LayerPlan plan;
  kernels::cuda::DeviceLayer layer;
};

// Every kind of layer that the kernels run, thinned out.
inline std::vector<RegionFormat> cuda_shapes(int every) {
  std::vector<RegionFormat> shapes;
  const auto add = [&](const std::vector<RegionFormat>& more) {
    for (const RegionFormat& shape : more) {
      if (PlaneTiles::unsupported(shape).empty()) shapes.push_back(shape);
    }
  };
  add(shape_sweep(every));
  add(shape_sweep_of_kinds(every));
  return shapes;
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
inline Numbers random_x(int64_t tokens, int64_t stride, bool halves, uint32_t seed) {
  Numbers x{random_normal(tokens * stride, seed), {}, halves};
  if (halves) {
    for (float& value : x.floats) {
      x.halves.push_back(float_to_half(value));
      value = half_to_float(x.halves.back());
    }
  }
  return x;
}

// How a kernel rounds x, relative to the largest |x|, and W, relative to its largest level.
struct KernelError {
  double x = 0, w = 0;
};
// The GEMV: x to 16 bits; a weight is a sum of up to nine fp32 numbers.
inline constexpr KernelError kFixedError = {0.505 / kernels::cuda::kLargestFixed, 5e-7};
// The GEMM: x to halves (of each x, so of the largest at most), W a sum of up to nine halves.
inline constexpr KernelError kHalfError = {0x1p-11, 9 * 0x1p-11};

// y against W x in double: each row within the worst case, and all of them far below it, as
// independent errors are.
inline void expect_product(const CudaLayer& layer, const Numbers& x, int64_t x_stride, int tokens,
                           const std::vector<float>& y, const KernelError& error) {
  const RegionFormat& shape = layer.linear.shape;
  ASSERT_EQ(y.size(), static_cast<size_t>(shape.rows * tokens));
  const auto scale = [&](int64_t col) {
    return layer.linear.column_scale.empty() ? 1.0 : double{layer.linear.column_scale[col]};
  };
  double level = 0;
  for (const float value : layer.linear.scale) level = std::max(level, std::fabs(double{value}));
  for (const float value : layer.linear.step) level = std::max(level, 255 * double{value});
  for (const float value : layer.linear.offset) level = std::max(level, std::fabs(double{value}));
  double square = 0, expected_square = 1e-30;
  for (int token = 0; token < tokens; ++token) {
    const float* input = x.floats.data() + token * x_stride;
    double largest = 0, sum = 0;
    for (int64_t col = 0; col < shape.cols; ++col) {
      largest = std::max(largest, std::fabs(input[col] * scale(col)));
      sum += std::fabs(input[col] * scale(col));
    }
    for (int64_t row = 0; row < shape.rows; ++row) {
      double expected = 0, weights = 0, size = 0;
      for (int64_t col = 0; col < shape.cols; ++col) {
        const double weight = layer.w[static_cast<size_t>(row * shape.cols + col)];
        expected += weight * input[col];
        size += std::fabs(weight * input[col]);
        weights += std::fabs(weight) / scale(col);
        expected_square += weight * weight * input[col] * input[col];
      }
      const double bound =
          weights * largest * error.x + level * sum * error.w + 3e-6 * size + 1e-30;
      const double actual = y[static_cast<size_t>(token * shape.rows + row)];
      ASSERT_LE(std::fabs(actual - expected), bound)
          << "token " << token << " of " << tokens << " row " << row << ": " << actual
          << ", expected " << expected;
      square += (actual - expected) * (actual - expected);
    }
  }
  const double typical = 4 * error.x + 2 * error.w;
  if (shape.cols < 64) return;  // too few to be typical
  ASSERT_LE(square, typical * typical * expected_square + 1e-30);
}

}  // namespace billm::test
