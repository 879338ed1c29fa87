// The launches of coder_body.h and feedback_body.h. Compiled without fused multiply-adds
// (kernels/CMakeLists.txt), so that the sums are those of the CPU's tiles.
#include "kernels/cuda/coder_body.h"
#include "kernels/cuda/device_thread.h"
#include "kernels/cuda/feedback_body.h"
#include "kernels/cuda/kernels.h"

namespace billm::kernels::cuda {
namespace {

struct RowsParams {
  CoderParams coder;
  int warps;
  int64_t bytes;  // of shared memory for a warp
};

__global__ void __launch_bounds__(256) coder_kernel(const __grid_constant__ RowsParams p) {
  DeviceThread thread;
  coder_body(thread, p.coder, p.warps, p.bytes);
}

__global__ void __launch_bounds__(kFeedbackThreads)
    feedback_kernel(const __grid_constant__ CoderParams p) {
  DeviceThread thread;
  feedback_body(thread, p);
}

unsigned ceil_div(int64_t a, int64_t b) { return static_cast<unsigned>((a + b - 1) / b); }

}  // namespace

const char* launch_code_rows(const CoderParams& params, int warps, cudaStream_t stream) {
  const int64_t bytes = coder_bytes(params.width);
  return launch<coder_kernel>(dim3(ceil_div(params.rows, warps)), warps * 32,
                              static_cast<int>(warps * bytes), stream,
                              RowsParams{params, warps, bytes});
}

const char* launch_code_feedback(const CoderParams& params, cudaStream_t stream) {
  return launch<feedback_kernel>(
      dim3(ceil_div(params.rows, kFeedbackTile), ceil_div(params.width, kFeedbackTile)),
      kFeedbackThreads, kFeedbackBytes, stream, params);
}

}  // namespace billm::kernels::cuda
