// Rotations of vectors in fp32, for running a layer: docs/format.md, "Rotation". size = odd * 2^k;
// k additions and `odd` multiplications an element, nothing fused and sums in the reference's
// order, so every instruction set gives the same floats. Error: about 1e-7 of the vector's norm.
#pragma once

#include <hwy/aligned_allocator.h>

#include <cstdint>
#include <vector>

namespace billm::kernels {

class VectorRotation {
 public:
  // Takes the tables of codes/rotation.h: signs [ceil(size / 64)], dct [odd, odd].
  VectorRotation(int64_t odd, int64_t power, const uint64_t* signs, const double* dct, double scale,
                 bool transposed);

  int64_t size() const { return odd_ * power_; }
  // y[v * y_stride + i] of v < count is element i of R (or R') x[v * x_stride ...]; y may be x.
  void apply(const float* x, int64_t x_stride, int64_t count, float* y, int64_t y_stride) const;

  // What the kernel reads.
  int64_t odd() const { return odd_; }
  int64_t power() const { return power_; }
  bool transposed() const { return transposed_; }
  const uint64_t* signs() const { return signs_.data(); }
  const float* constants() const { return constants_.data(); }
  float scale() const { return scale_; }

 private:
  int64_t odd_, power_;
  bool transposed_;
  std::vector<uint64_t> signs_;
  std::vector<float> constants_;  // [input][output] of the DCT (or its inverse), times 2^(-k/2)
  float scale_;                   // 2^(-k/2)
};

}  // namespace billm::kernels
