// See host_cuda.h.
#include "support/host_cuda.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>

#include "kernels/cuda/coder_body.h"
#include "kernels/cuda/coder_layer.h"
#include "kernels/cuda/feedback_body.h"
#include "support/cuda_emulator.h"

namespace billm::test {
namespace {

using namespace kernels::cuda;  // NOLINT: the functions stand for those of that namespace

const char* next_call() {
  HostCuda& state = host_cuda();
  if (state.fail_after == 0) return "no more";
  if (state.fail_after > 0) --state.fail_after;
  return nullptr;
}

const char* use_device(int) { return next_call(); }
const char* device(int, CudaDevice* device) {
  device->shared_bytes = 99 * 1024;  // the least of the architectures that are built for (86, 89)
  return next_call();
}
const char* allocate(int64_t bytes, void** memory) {
  if (const char* problem = next_call()) return problem;
  if (host_cuda().allocations_left == 0) return "out of memory";
  if (host_cuda().allocations_left > 0) --host_cuda().allocations_left;
  *memory = std::malloc(static_cast<size_t>(bytes));
  if (*memory == nullptr) return "out of memory";
  std::memset(*memory, 0xff, static_cast<size_t>(bytes));  // NaN until it is written
  ++host_cuda().live_allocations;
  return nullptr;
}
void release(void* memory) {
  --host_cuda().live_allocations;
  std::free(memory);
}
const char* copy(void* to, const void* from, int64_t bytes, void*) {
  if (const char* problem = next_call()) return problem;
  std::memcpy(to, from, static_cast<size_t>(bytes));
  return nullptr;
}

// The group's product as the CPU's tiles make it.
void feedback(const CoderParams& p) {
  for (int64_t row = 0; row < p.rows; ++row) {
    for (int c = 0; c < p.width; ++c) {
      float sum = 0;
      for (int64_t i = 0; i < p.first; ++i) {
        sum += p.delta[row * p.cols + i] * p.factor[i * p.cols + p.first + c];
      }
      p.carried[row * p.width + c] = sum;
    }
  }
}

int tiles(int64_t count, int64_t tile) { return static_cast<int>((count + tile - 1) / tile); }

const char* code_feedback(const CoderParams* params, void*) {
  if (const char* problem = next_call()) return problem;
  ++host_cuda().feedback_launches;
  if (!host_cuda().emulated) {
    feedback(*params);
    return nullptr;
  }
  run_grid(tiles(params->rows, kFeedbackTile), tiles(params->width, kFeedbackTile),
           kFeedbackThreads, kFeedbackBytes, WarpOrder::kForward,
           [&](EmulatedThread& thread) { feedback_body(thread, *params); });
  return nullptr;
}

const char* code_rows(const CoderParams* params, int warps, void*) {
  if (const char* problem = next_call()) return problem;
  ++host_cuda().row_launches;
  const int64_t bytes = coder_bytes(params->width);
  if (host_cuda().emulated) {
    run_grid(tiles(params->rows, warps), 1, warps * 32, static_cast<int>(warps * bytes),
             WarpOrder::kForward,
             [&](EmulatedThread& thread) { coder_body(thread, *params, warps, bytes); });
    return nullptr;
  }
  const std::unique_ptr<uint8_t, void (*)(void*)> memory(
      static_cast<uint8_t*>(std::aligned_alloc(128, static_cast<size_t>(bytes))), std::free);
  std::memset(memory.get(), 0xff, static_cast<size_t>(bytes));
  for (int64_t row = 0; row < params->rows; ++row) {
    RowCoder<OneLane>({}, *params, row, memory.get()).run();
  }
  return nullptr;
}

}  // namespace

HostCuda& host_cuda() {
  static thread_local HostCuda state;
  return state;
}

const CudaApi& host_cuda_api() {
  static const CudaApi api = [] {
    CudaApi functions{};
    functions.device = device;
    functions.use_device = use_device;
    functions.allocate = allocate;
    functions.release = release;
    functions.copy_in = copy;
    functions.copy_out = copy;
    functions.code_feedback = code_feedback;
    functions.code_rows = code_rows;
    return functions;
  }();
  return api;
}

}  // namespace billm::test
