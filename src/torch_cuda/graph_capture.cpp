// CUDA graphs of ATen's work (include/billm/model/graph_capture.h). A library of its own,
// libbillm_torch_cuda.so, since it needs libtorch_cuda, which the program loads only when a CUDA
// device is used (docs/decisions/0003-libtorch.md).
#include "billm/model/graph_capture.h"

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <exception>

namespace billm {
namespace {

class TorchGraph : public CapturedGraph {
 public:
  void replay() override { graph.replay(); }
  at::cuda::CUDAGraph graph;
};

class TorchCapture : public GraphCapture {
 public:
  explicit TorchCapture(c10::DeviceIndex device)
      : stream_(c10::cuda::getStreamFromPool(false, device)),
        pool_(at::cuda::graph_pool_handle()) {}

  std::unique_ptr<CapturedGraph> capture(const std::function<void()>& work) override {
    const c10::cuda::CUDAStreamGuard guard(stream_);
    c10::cuda::device_synchronize();  // what the work reads was written in other streams
    work();
    stream_.synchronize();
    auto result = std::make_unique<TorchGraph>();
    // Graphs share their memory: one runs at a time, and none reads what another left there.
    result->graph.capture_begin(pool_, cudaStreamCaptureModeThreadLocal);
    std::exception_ptr problem;
    try {
      work();
    } catch (...) {
      problem = std::current_exception();
    }
    try {
      result->graph.capture_end();  // also of a failed capture, or the stream stays in it
    } catch (...) {
      if (!problem) throw;
    }
    if (problem) std::rethrow_exception(problem);
    return result;
  }

 private:
  const c10::cuda::CUDAStream stream_;  // one for all: cuBLAS keeps a workspace for each
  const c10::MempoolId_t pool_;
};

}  // namespace
}  // namespace billm

extern "C" __attribute__((visibility("default"))) billm::GraphCapture* billm_graph_capture(
    int version, int device) {
  if (version != billm::kGraphCaptureVersion) return nullptr;
  return new billm::TorchCapture(static_cast<c10::DeviceIndex>(device));
}
