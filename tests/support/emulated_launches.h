// The launches of kernels/cuda/products.h on the emulated GPU, in host memory.
#pragma once

#include "kernels/cuda/products.h"
#include "support/cuda_emulator.h"

namespace billm::test {

class EmulatedLaunches : public kernels::cuda::Launches {
 public:
  explicit EmulatedLaunches(WarpOrder order = WarpOrder::kForward, bool blas = true)
      : order_(order), blas_(blas) {}

  const char* check_device(int device) override;  // there is device 0
  bool has_blas() override { return blas_; }
  const char* gemv(const kernels::cuda::GemvParams& params) override;
  const char* prepare(const kernels::cuda::TokensParams& params, int64_t padded_tokens) override;
  const char* gemm(const kernels::cuda::GemmParams& params) override;
  const char* dense(const kernels::cuda::DenseParams& params) override;
  const char* scale(const kernels::cuda::ScaleParams& params, int64_t tokens) override;
  // Sums in fp64.
  const char* dense_product(const kernels::cuda::DenseProduct& product) override;

 private:
  const WarpOrder order_;
  const bool blas_;
};

}  // namespace billm::test
