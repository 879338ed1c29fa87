// What the products of a layer are on a device: memory, launches, cuBLAS.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/products.h"

namespace billm::kernels::cuda {

// Each returns null or what went wrong.
const char* check(cudaError_t error);
const char* layer_memory(const PlaneTilesView& view, int64_t* bytes);
const char* upload_layer(const PlaneTilesView& view, void* memory, cudaStream_t stream,
                         CudaLayer** layer);

class StreamLaunches : public Launches {
 public:
  explicit StreamLaunches(void* stream) : stream_(static_cast<cudaStream_t>(stream)) {}
  const char* check_device(int device) override;
  bool has_blas() override;
  const char* gemv(const GemvParams& params) override;
  const char* prepare(const TokensParams& params, int64_t padded_tokens) override;
  const char* gemm(const GemmParams& params) override;
  const char* dense(const DenseParams& params) override;
  const char* scale(const ScaleParams& params, int64_t tokens) override;
  const char* dense_product(const DenseProduct& product) override;

 private:
  cudaStream_t stream_;
};

// By cuBLAS, which is loaded when it is first wanted; dense_problem() is null where it can be.
const char* dense_problem();
const char* run_dense_product(const DenseProduct& product, cudaStream_t stream);

}  // namespace billm::kernels::cuda
