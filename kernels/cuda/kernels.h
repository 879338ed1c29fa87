// Launchers of the CUDA kernels, for api.cu. Each returns null or the text of what went wrong.
#pragma once

#include <cuda_runtime.h>

#include <atomic>

#include "kernels/cuda/coder_params.h"
#include "kernels/cuda/device_layer.h"
#include "kernels/cuda/gemm_body.h"
#include "kernels/cuda/gemv_body.h"

namespace billm::kernels::cuda {

inline constexpr int kMaxDevices = 64;

// Loads `Kernel` on the current device, where this is not done yet, and lets it have all dynamic
// shared memory that a block may have. From any thread.
template <auto Kernel>
const char* load_kernel() {
  static std::atomic<bool> done[kMaxDevices];
  int device = 0, bytes = 0;
  cudaFuncAttributes attributes{};
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess && device >= kMaxDevices) return "too many devices";
  if (error == cudaSuccess && done[device].load(std::memory_order_acquire)) return nullptr;
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  }
  if (error == cudaSuccess) error = cudaFuncGetAttributes(&attributes, Kernel);
  if (error == cudaSuccess) {
    error = cudaFuncSetAttribute(Kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 bytes - static_cast<int>(attributes.sharedSizeBytes));
  }
  if (error == cudaSuccess) done[device].store(true, std::memory_order_release);
  return check(error);
}

// Launches it, and says what cudaGetLastError says of this launch: what an earlier call has left
// there is dropped (errors that make the device unusable come again).
template <auto Kernel, typename Params>
const char* launch(dim3 grid, int threads, int shared_bytes, cudaStream_t stream,
                   const Params& params) {
  if (const char* problem = load_kernel<Kernel>()) return problem;
  cudaGetLastError();
  Kernel<<<grid, static_cast<unsigned>(threads), static_cast<size_t>(shared_bytes), stream>>>(
      params);
  return check(cudaGetLastError());
}

const char* load_gemv(const GemvPlan& plan);  // the kernel that launch_gemv() takes
const char* launch_gemv(const GemvParams& params, cudaStream_t stream);

const char* launch_prepare(const TokensParams& params, int64_t padded_tokens, cudaStream_t stream);
const char* launch_gemm(const GemmParams& params, cudaStream_t stream);
const char* launch_dense(const DenseParams& params, cudaStream_t stream);
const char* launch_scale(const ScaleParams& params, int64_t tokens, cudaStream_t stream);

const char* launch_code_feedback(const CoderParams& params, cudaStream_t stream);
const char* launch_code_rows(const CoderParams& params, int warps, cudaStream_t stream);

}  // namespace billm::kernels::cuda
