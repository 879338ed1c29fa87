// A layer in the memory of a device, and its products.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/cuda_api.h"
#include "kernels/cuda/launch.h"

namespace billm::kernels::cuda {

struct CudaLayer {
  DeviceLayer layer;  // pointers into `memory`
  DeviceLimits limits;
  int device = 0;
  int coefficients = 0;  // plan_gemm's
  int64_t bytes = 0;     // read for one product
  void* memory = nullptr;
};

// Each returns null or what went wrong.
const char* check(cudaError_t error);
const char* upload_layer(const PlaneTilesView& view, cudaStream_t stream, CudaLayer** layer);
void free_layer(CudaLayer* layer);
const char* run_gemv(const CudaProduct& product, cudaStream_t stream);
const char* gemm_workspace(const CudaProduct& product, CudaGemmPath path, int64_t* bytes);
const char* run_gemm(const CudaProduct& product, CudaGemmPath path, void* workspace, int64_t bytes,
                     cudaStream_t stream);

// y [tokens][y_stride] = factor * x [tokens][cols] w [rows][cols]^T by cuBLAS, which is loaded when
// it is first wanted. x and w are halves, sums fp32.
struct DenseProduct {
  const void* w = nullptr;
  const void* x = nullptr;
  void* y = nullptr;
  int64_t rows = 0, cols = 0, tokens = 0, y_stride = 0;
  bool y_halves = true;
  float factor = 1;
};
const char* run_dense_product(const DenseProduct& product, cudaStream_t stream);

}  // namespace billm::kernels::cuda
