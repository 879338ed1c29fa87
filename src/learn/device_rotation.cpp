// See device_rotation.h.
#include "device_rotation.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>

#include <bit>

namespace billm {
namespace {

// Sylvester's order: -1 to the number of ones that row and column share.
at::Tensor hadamard(int64_t size) {
  at::Tensor matrix = at::empty({size, size}, at::kFloat);
  float* values = matrix.mutable_data_ptr<float>();
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t j = 0; j < size; ++j) {
      values[i * size + j] = std::popcount(static_cast<uint64_t>(i & j)) % 2 == 0 ? 1.0f : -1.0f;
    }
  }
  return matrix;
}

}  // namespace

DeviceRotation::DeviceRotation(const Rotation& rotation, c10::Device device)
    : transposed_(rotation.transposed) {
  const RotationTables tables = make_rotation_tables(rotation);
  at::Tensor signs = at::empty({rotation.size}, at::kFloat);
  for (int64_t i = 0; i < rotation.size; ++i) {
    const bool plus = (tables.signs[static_cast<size_t>(i / 64)] >> (i % 64)) & 1;
    signs.mutable_data_ptr<float>()[i] = static_cast<float>(plus ? tables.scale : -tables.scale);
  }
  const int bits = std::countr_zero(static_cast<uint64_t>(tables.power));
  at::Tensor dct = at::empty({tables.odd, tables.odd}, at::kFloat);
  for (int64_t i = 0; i < tables.odd * tables.odd; ++i) {
    dct.mutable_data_ptr<float>()[i] = static_cast<float>(tables.dct[static_cast<size_t>(i)]);
  }
  signs_ = signs.to(device);
  high_ = hadamard(int64_t{1} << (bits - bits / 2)).to(device);
  low_ = hadamard(int64_t{1} << (bits / 2)).to(device);
  dct_ = dct.to(device);
}

at::Tensor DeviceRotation::rows(const at::Tensor& matrix, bool inverse) const {
  const bool transposed = transposed_ != inverse;
  const int64_t n = matrix.size(0), high = high_.size(0), low = low_.size(0), odd = dct_.size(0);
  at::Tensor x = transposed ? matrix : matrix.mul(signs_);
  // Index of C, high and low bits of the index of H; the Hadamard matrices are symmetric.
  x = at::matmul(x.reshape({n * odd * high, low}), low_).view({n * odd, high, low});
  x = at::matmul(high_, x).view({n, odd, high * low});
  if (odd > 1) x = at::matmul(transposed ? dct_.t() : dct_, x);
  x = x.reshape({n, odd * high * low});
  return transposed ? x.mul(signs_) : x;
}

}  // namespace billm
