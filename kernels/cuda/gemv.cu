// The launches of gemv_body.h.
#include <utility>

#include "kernels/cuda/device_thread.h"
#include "kernels/cuda/gemv_body.h"
#include "kernels/cuda/kernels.h"

namespace billm::kernels::cuda {
namespace {

template <int TokenBlocks, int Set>
__global__ void __launch_bounds__(max_warps(TokenBlocks) * kWarp, 1)
    gemv_kernel(const __grid_constant__ GemvParams p) {
  DeviceThread thread;
  gemv_body<TokenBlocks, Set>(thread, p);
}

using Kernel = void (*)(GemvParams);
struct Kernels {
  Kernel of_set[kPlaneSetCount];
};
template <int TokenBlocks, size_t... Index>
constexpr Kernels kernels_of(std::index_sequence<Index...>) {
  return {{gemv_kernel<TokenBlocks, kPlaneSets[Index]>...}};
}

}  // namespace

const char* launch_gemv(const GemvParams& params, cudaStream_t stream) {
  constexpr std::make_index_sequence<kPlaneSetCount> kSets;
  static constexpr Kernels kKernels[] = {kernels_of<1>(kSets), kernels_of<2>(kSets)};
  const GemvPlan& plan = params.plan;
  return launch(kKernels[plan.token_blocks - 1].of_set[plan.plane_set],
                dim3(static_cast<unsigned>(plan.blocks)), plan.threads, plan.shared_bytes, stream,
                params);
}

}  // namespace billm::kernels::cuda
