// The launches of gemm_body.h.
#include "kernels/cuda/device_thread.h"
#include "kernels/cuda/gemm_body.h"
#include "kernels/cuda/kernels.h"

namespace billm::kernels::cuda {
namespace {

__global__ void __launch_bounds__(kPrepareThreads)
    prepare_kernel(const __grid_constant__ TokensParams p) {
  DeviceThread thread;
  prepare_token(thread, p);
}

// Two blocks of 128 threads on a multiprocessor leave 255 registers a thread.
template <int TokenBlocks>
__global__ void __launch_bounds__(kGemmThreads, 2)
    gemm_kernel(const __grid_constant__ GemmParams p) {
  DeviceThread thread;
  gemm_body<TokenBlocks>(thread, p);
}

__global__ void __launch_bounds__(kDenseWarps* kWarp)
    dense_kernel(const __grid_constant__ DenseParams p) {
  DeviceThread thread;
  dense_body(thread, p);
}

__global__ void __launch_bounds__(kDenseWarps* kWarp)
    dense_scattered_kernel(const __grid_constant__ DenseParams p) {
  DeviceThread thread;
  dense_scattered_body(thread, p);
}

__global__ void __launch_bounds__(kPrepareThreads)
    scale_kernel(const __grid_constant__ ScaleParams p) {
  DeviceThread thread;
  scale_body(thread, p);
}

const char* grid_of(int64_t blocks, dim3* grid) {
  if (blocks < 1 || blocks > 0x7fffffff) return "gemm: too many rows or tokens";
  *grid = dim3(static_cast<unsigned>(blocks));
  return nullptr;
}

}  // namespace

const char* launch_prepare(const TokensParams& params, int64_t padded_tokens, cudaStream_t stream) {
  dim3 grid;
  const char* problem = grid_of(padded_tokens, &grid);
  if (problem != nullptr) return problem;
  return launch<prepare_kernel>(grid, kPrepareThreads, kPrepareThreads / kWarp * 4, stream, params);
}

const char* launch_gemm(const GemmParams& params, cudaStream_t stream) {
  const GemmPlan& plan = params.plan;
  const dim3 grid(static_cast<unsigned>(plan.grid_rows), static_cast<unsigned>(plan.grid_tokens));
  if (plan.token_blocks == 16) {
    return launch<gemm_kernel<16>>(grid, kGemmThreads, plan.shared_bytes, stream, params);
  }
  return launch<gemm_kernel<8>>(grid, kGemmThreads, plan.shared_bytes, stream, params);
}

const char* launch_dense(const DenseParams& params, cudaStream_t stream) {
  const DeviceLayer& layer = params.layer;
  const auto blocks = [](int64_t items) { return (items + kDenseWarps - 1) / kDenseWarps; };
  dim3 grid;
  const char* problem = grid_of(blocks(layer.tiles() * layer.strips), &grid);
  if (problem == nullptr) {
    problem = launch<dense_kernel>(grid, kDenseWarps * kWarp, 0, stream, params);
  }
  if (problem != nullptr || layer.scattered.start == nullptr) return problem;
  problem = grid_of(blocks(layer.rows), &grid);
  if (problem != nullptr) return problem;
  return launch<dense_scattered_kernel>(grid, kDenseWarps * kWarp, 0, stream, params);
}

const char* launch_scale(const ScaleParams& params, int64_t tokens, cudaStream_t stream) {
  dim3 grid;
  const char* problem = grid_of(tokens, &grid);
  if (problem != nullptr) return problem;
  return launch<scale_kernel>(grid, kPrepareThreads, 0, stream, params);
}

}  // namespace billm::kernels::cuda
