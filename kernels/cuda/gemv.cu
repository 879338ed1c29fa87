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

struct Functions {
  const char* (*load)();
  const char* (*launch)(dim3, int, int, cudaStream_t, const GemvParams&);
};
struct FunctionsOfSets {
  Functions of_set[kPlaneSetCount];
};
template <int TokenBlocks, size_t... Index>
constexpr FunctionsOfSets functions_of(std::index_sequence<Index...>) {
  return {{{load_kernel<gemv_kernel<TokenBlocks, kPlaneSets[Index]>>,
            launch<gemv_kernel<TokenBlocks, kPlaneSets[Index]>, GemvParams>}...}};
}

const Functions& functions(const GemvPlan& plan) {
  constexpr std::make_index_sequence<kPlaneSetCount> kSets;
  static constexpr FunctionsOfSets kFunctions[] = {functions_of<1>(kSets), functions_of<2>(kSets)};
  return kFunctions[plan.token_blocks - 1].of_set[plan.plane_set];
}

}  // namespace

const char* load_gemv(const GemvPlan& plan) { return functions(plan).load(); }

const char* launch_gemv(const GemvParams& params, cudaStream_t stream) {
  const GemvPlan& plan = params.plan;
  return functions(plan).launch(dim3(static_cast<unsigned>(plan.blocks)), plan.threads,
                                plan.shared_bytes, stream, params);
}

}  // namespace billm::kernels::cuda
