// Layers in the memory of a device: see device_layer.h.
#include "kernels/cuda/device_layer.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/layer_memory.h"

namespace billm::kernels::cuda {
namespace {

const char* limits_of(int device, DeviceLimits* limits) {
  const char* problem =
      check(cudaDeviceGetAttribute(&limits->sm_count, cudaDevAttrMultiProcessorCount, device));
  if (problem != nullptr) return problem;
  problem = check(cudaDeviceGetAttribute(&limits->shared_bytes,
                                         cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  if (problem != nullptr) return problem;
  return check(cudaDeviceGetAttribute(&limits->major, cudaDevAttrComputeCapabilityMajor, device));
}

}  // namespace

const char* check(cudaError_t error) {
  if (error == cudaSuccess) return nullptr;
  cudaGetLastError();  // told now, and not by the next launch
  return cudaGetErrorString(error);
}

const char* layer_memory(const PlaneTilesView& view, int64_t* bytes) {
  LayerPlan plan;
  const char* problem = plan_layer(view, &plan);
  *bytes = problem == nullptr ? layer_memory_bytes(view, plan) : 0;
  return problem;
}

const char* upload_layer(const PlaneTilesView& view, void* memory, cudaStream_t stream,
                         CudaLayer** layer) {
  if (memory == nullptr || reinterpret_cast<uintptr_t>(memory) % kPartAlignment != 0) {
    return "layer: its memory is missing or not aligned";
  }
  int device = 0;
  DeviceLimits limits;
  const char* problem = check(cudaGetDevice(&device));
  if (problem == nullptr) problem = limits_of(device, &limits);
  if (problem != nullptr) return problem;
  const CopyIn copy = [](void* to, const void* from, int64_t bytes, void* context) {
    return check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice,
                                 static_cast<cudaStream_t>(context)));
  };
  return make_layer(view, memory, limits, device, copy, stream, layer);
}

const char* StreamLaunches::check_device(int device) {
  int current = 0;
  const char* problem = check(cudaGetDevice(&current));
  if (problem != nullptr) return problem;
  return current == device ? nullptr : "product: the layer is on another device";
}
bool StreamLaunches::has_blas() { return dense_problem() == nullptr; }
const char* StreamLaunches::gemv(const GemvParams& params) { return launch_gemv(params, stream_); }
const char* StreamLaunches::prepare(const TokensParams& params, int64_t padded_tokens) {
  return launch_prepare(params, padded_tokens, stream_);
}
const char* StreamLaunches::gemm(const GemmParams& params) { return launch_gemm(params, stream_); }
const char* StreamLaunches::dense(const DenseParams& params) {
  return launch_dense(params, stream_);
}
const char* StreamLaunches::scale(const ScaleParams& params, int64_t tokens) {
  return launch_scale(params, tokens, stream_);
}
const char* StreamLaunches::dense_product(const DenseProduct& product) {
  return run_dense_product(product, stream_);
}

}  // namespace billm::kernels::cuda
