// A rotation of vectors by ATen, through which autograd passes, on any device.
#pragma once

#include <ATen/core/Tensor.h>

#include "billm/codes/rotation.h"

namespace billm {

class DeviceRotation {
 public:
  DeviceRotation(const Rotation& rotation, c10::Device device);

  // R x for every row x of a matrix [n, size]; `inverse`: R' x. As the fp32 kernels compute it but
  // for rounding: products with small Hadamard matrices and the DCT of the odd part.
  at::Tensor rows(const at::Tensor& matrix, bool inverse) const;
  // R M and M R.
  at::Tensor left_of(const at::Tensor& matrix) const { return rows(matrix.t(), false).t(); }
  at::Tensor right_of(const at::Tensor& matrix) const { return rows(matrix, true); }

 private:
  bool transposed_;
  at::Tensor signs_;       // [size], +-2^(-k/2)
  at::Tensor high_, low_;  // Hadamard matrices of 2^(k - k/2) and 2^(k/2)
  at::Tensor dct_;         // [odd, odd]
};

}  // namespace billm
