// The work of quantizing a layer on a GPU: the factorization through ATen's linear algebra
// (cuSOLVER), and the kernels of libbillm_cuda.so. The code runs on ATen's CPU device, where the
// tests compare it with the kernels.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include "billm/quantize/accelerator.h"

namespace billm {

// R upper triangular with h = R R^T, 0 below; undefined if h [n, n] is not positive definite. With
// J the reversal of rows or columns, J h J = L L^T is the usual factorization and R = J L J.
at::Tensor factor_upper(const at::Tensor& h);

class GpuAccelerator : public Accelerator {
 public:
  // `kernels` may be null: the CPU codes.
  GpuAccelerator(c10::Device device, const kernels::cuda::CudaApi* kernels)
      : device_(device), kernels_(kernels) {}
  // Memory of the device: about 32 * width^2 bytes.
  std::vector<float> factor(const std::vector<float>& matrix, const std::vector<double>& added,
                            const std::vector<int64_t>& order) const override;
  const kernels::cuda::CudaApi* kernels() const override { return kernels_; }
  int device() const override { return device_.index(); }
  void give_back_memory() const override;  // ATen's cache

 private:
  c10::Device device_;
  const kernels::cuda::CudaApi* kernels_;
};

}  // namespace billm
