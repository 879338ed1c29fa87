// See coder_layer.h.
#include "kernels/cuda/coder_layer.h"

#include <algorithm>
#include <vector>

#include "kernels/cuda/coder_memory.h"

namespace billm::kernels::cuda {
namespace {

// Memory of the device, and the first thing that went wrong.
class Buffers {
 public:
  Buffers(const CudaApi& api, const std::function<void()>& make_room)
      : api_(api), make_room_(make_room) {}
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;
  ~Buffers() {
    for (void* memory : memory_) api_.release(memory);
  }

  template <typename T>
  T* room(int64_t count) {
    void* memory = nullptr;
    if (problem == nullptr) {
      const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
      problem = api_.allocate(bytes, &memory);
      if (problem != nullptr && make_room_) {
        make_room_();
        problem = api_.allocate(bytes, &memory);
      }
      if (problem == nullptr) memory_.push_back(memory);
    }
    return static_cast<T*>(memory);
  }
  // A copy; null of null.
  template <typename T>
  const T* copy(const T* host, int64_t count) {
    if (host == nullptr) return nullptr;
    T* const memory = room<T>(count);
    if (problem == nullptr) {
      problem = api_.copy_in(memory, host, count * static_cast<int64_t>(sizeof(T)), nullptr);
    }
    return memory;
  }

  const char* problem = nullptr;

 private:
  const CudaApi& api_;
  const std::function<void()>& make_room_;
  std::vector<void*> memory_;
};

}  // namespace

int64_t coder_bytes(int width) { return (RowMemory(nullptr, width).used + 127) / 128 * 128; }

int coder_warps(int width, int shared_bytes) {
  constexpr int64_t kMostWarps = 8;
  return static_cast<int>(std::min<int64_t>(kMostWarps, shared_bytes / coder_bytes(width)));
}

const char* code_layer(const CudaApi& api, const CoderJob& job) {
  const CoderParams& layer = job.layer;
  if (layer.rows < 1 || layer.cols < 1 || job.block_size < 1 || job.block_size > kMaxCodedWidth) {
    return "coding: expected rows, columns and groups of at most 512 columns";
  }
  const int widest = static_cast<int>(std::min<int64_t>(job.block_size, layer.cols));
  CudaDevice device;
  if (const char* problem = api.use_device(job.device)) return problem;
  if (const char* problem = api.device(job.device, &device)) return problem;
  const int warps = coder_warps(widest, device.shared_bytes);
  if (warps < 1) return "coding: too little shared memory";

  const int64_t weights = layer.rows * layer.cols;
  std::vector<float> inverse;
  for (int64_t row = 0; layer.step != nullptr && row < layer.rows; ++row) {
    inverse.push_back(layer.step[row] > 0 ? 1.0f / layer.step[row] : 0.0f);
  }
  Buffers buffers(api, job.make_room);
  CoderParams params = layer;
  params.weight = buffers.copy(layer.weight, weights);
  params.factor = buffers.copy(layer.factor, layer.cols * layer.cols);
  params.diagonal = buffers.copy(layer.diagonal, layer.cols);
  params.norm = buffers.copy(layer.norm, layer.cols);
  params.set = buffers.copy(layer.set, layer.cols);
  params.mask = buffers.copy(layer.mask, weights);
  params.step = buffers.copy(layer.step, layer.rows);
  params.inverse = inverse.empty() ? nullptr : buffers.copy(inverse.data(), layer.rows);
  params.zero = buffers.copy(layer.zero, layer.rows);
  params.rounding.log8 = buffers.copy(kLog8Factors.data(), int64_t{256});
  params.delta = buffers.room<float>(weights);
  params.carried = buffers.room<float>(layer.rows * widest);
  params.region = buffers.room<uint8_t>(weights);
  params.code = buffers.room<uint8_t>(weights);
  const int64_t groups = (layer.cols + job.block_size - 1) / job.block_size;
  const int64_t level_count = layer.rows * kRowLevels;
  float* const levels = buffers.room<float>(groups * level_count);
  if (buffers.problem != nullptr) return buffers.problem;

  for (int64_t b = 0; b < groups; ++b) {
    params.first = b * job.block_size;
    params.width = static_cast<int>(std::min<int64_t>(job.block_size, layer.cols - params.first));
    params.levels = levels + b * level_count;
    if (params.feedback != CodeFeedback::kNone) {
      if (const char* problem = api.code_feedback(&params, nullptr)) return problem;
    }
    if (const char* problem = api.code_rows(&params, warps, nullptr)) return problem;
  }
  const char* problem = api.copy_out(job.region, params.region, weights, nullptr);
  if (problem == nullptr) problem = api.copy_out(job.code, params.code, weights, nullptr);
  if (problem == nullptr) {
    problem = api.copy_out(job.levels, levels,
                           groups * level_count * static_cast<int64_t>(sizeof(float)), nullptr);
  }
  return problem;
}

}  // namespace billm::kernels::cuda
