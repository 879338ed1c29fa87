// Launchers of the CUDA kernels, for api.cu. Each returns null or the text of what went wrong.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/coder_params.h"
#include "kernels/cuda/gemm_body.h"
#include "kernels/cuda/gemv_body.h"

namespace billm::kernels::cuda {

// Launches `kernel` with its dynamic shared memory opted in, and says what cudaGetLastError says.
template <typename Params>
const char* launch(void (*kernel)(Params), dim3 grid, int threads, int shared_bytes,
                   cudaStream_t stream, const Params& params) {
  cudaError_t error =
      cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                           cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  if (error == cudaSuccess) {
    kernel<<<grid, static_cast<unsigned>(threads), static_cast<size_t>(shared_bytes), stream>>>(
        params);
    error = cudaGetLastError();
  }
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

const char* launch_gemv(const GemvParams& params, cudaStream_t stream);

const char* launch_prepare(const TokensParams& params, int64_t padded_tokens, cudaStream_t stream);
const char* launch_gemm(const GemmParams& params, cudaStream_t stream);
const char* launch_dense(const DenseParams& params, cudaStream_t stream);
const char* launch_scale(const ScaleParams& params, int64_t tokens, cudaStream_t stream);

const char* launch_code_feedback(const CoderParams& params, cudaStream_t stream);
const char* launch_code_rows(const CoderParams& params, int warps, cudaStream_t stream);

}  // namespace billm::kernels::cuda
