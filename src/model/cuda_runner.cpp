// See cuda_runner.h. Layers lie in ATen's memory, of which there is one allocator for a device, and
// products are queued in ATen's current stream, so that they can be captured in a graph with
// ATen's own work.
#include "cuda_runner.h"

#include <ATen/ops/empty.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <string>
#include <vector>

#include "billm/base/error.h"
#include "billm/base/log.h"
#include "billm/model/cuda_kernels.h"
#include "billm/model/running_device.h"
#include "billm/model/runtime.h"
#include "billm/pack/plane_tiles.h"
#include "factor_operators.h"
#include "kernels/cuda/load.h"

namespace billm {
namespace {

using kernels::cuda::CudaApi;
using kernels::cuda::CudaLayer;

struct Target {
  const CudaApi& api;
  const c10::Device device;

  // The device is a thread's own setting, and the library's is not ATen's.
  void use() const { check_cuda(api.use_device(device.has_index() ? device.index() : 0)); }
  // ATen's current one.
  void* stream() const {
    if (!device.is_cuda()) return nullptr;
    return c10::impl::VirtualGuardImpl(device.type()).getStream(device).native_handle();
  }
};

// Aligned as the kernels want it: a GPU's memory of ATen always is, the CPU's is not.
at::Tensor aligned_memory(int64_t bytes, c10::Device device) {
  constexpr int64_t kAlignment = 256;  // cuda_api.h
  const at::Tensor memory =
      at::empty({bytes + kAlignment}, at::TensorOptions(at::kByte).device(device));
  const auto past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(memory.data_ptr()) %
                                         static_cast<uintptr_t>(kAlignment));
  return memory.narrow(0, past == 0 ? 0 : kAlignment - past, bytes);
}

class CudaLinear : public LinearOperator {
 public:
  CudaLinear(const Target& target, const kernels::PlaneTilesView& view)
      : target_(target), rows_(view.rows), cols_(view.cols) {
    target_.use();
    int64_t bytes = 0;
    check_cuda(target_.api.layer_memory(&view, &bytes));
    memory_ = aligned_memory(bytes, target_.device);
    check_cuda(target_.api.upload(&view, memory_.data_ptr(), target_.stream(), &layer_));
  }
  ~CudaLinear() override { target_.api.free_layer(layer_); }
  CudaLinear(const CudaLinear&) = delete;
  CudaLinear& operator=(const CudaLinear&) = delete;

  int64_t bytes() const override { return target_.api.layer_bytes(layer_); }

  at::Tensor apply(const at::Tensor& x) const override {
    if (x.device() != target_.device || x.scalar_type() != at::kFloat || x.dim() != 2 ||
        x.size(1) != cols_) {
      throw Error(ErrorCode::kFailure, "CUDA: a packed layer of " + std::to_string(cols_) +
                                           " columns got an input that is not fp32 [tokens, " +
                                           std::to_string(cols_) + "] of the device");
    }
    target_.use();
    const at::Tensor input = x.contiguous();
    const int64_t tokens = input.size(0);
    at::Tensor result = at::empty({tokens, rows_}, input.options());
    kernels::cuda::CudaProduct product;
    product.layer = layer_;
    product.x = {input.data_ptr(), cols_, false};
    product.y = {result.data_ptr(), rows_, false};
    product.tokens = tokens;
    int64_t bytes = 0;
    const auto path = kernels::cuda::CudaGemmPath::kAuto;
    check_cuda(target_.api.workspace_bytes(&product, path, &bytes));
    // ATen's memory is reused in the order of the stream, so it may be dropped at once.
    at::Tensor workspace;
    if (bytes > 0) workspace = aligned_memory(bytes, target_.device);
    check_cuda(target_.api.gemm(&product, path, bytes > 0 ? workspace.data_ptr() : nullptr, bytes,
                                target_.stream()));
    return result;
  }

 private:
  const Target target_;
  const int64_t rows_, cols_;
  at::Tensor memory_;
  CudaLayer* layer_ = nullptr;
};

// What of a layer the CUDA kernels do not run; empty: nothing.
std::string without_cuda(const PackedLayer& packed) {
  if (packed.product()) return kNoCudaProducts;
  const char* const problem = factor_operators()[packed.factors.front().index()].without_cuda;
  return problem == nullptr ? "" : problem;
}

Error cannot_run(const PackedFactor& factor) {
  const char* const problem = factor_operators()[factor.index()].without_cuda;
  return Error(ErrorCode::kFailure, std::string("device cuda: ") + problem, "use --device cpu");
}

class CudaRunner : public LinearRunner {
 public:
  CudaRunner(const Target& target, int threads) : target_(target), threads_(threads) {
    target_.use();
    if (const char* problem = target_.api.dense_problem(); problem != nullptr) {
      log_warning(std::string(problem) + ": prompts are worked off without it, more slowly");
    }
  }
  std::vector<std::unique_ptr<LinearOperator>> make_copies(const PackedPlanes& packed,
                                                           int64_t bytes) override {
    const PlaneTiles tiles(packed, target_.api.tile_order(), threads_);
    std::vector<std::unique_ptr<LinearOperator>> result;
    do {
      result.push_back(std::make_unique<CudaLinear>(target_, tiles.view()));
    } while (static_cast<int64_t>(result.size()) * result[0]->bytes() < bytes);
    return result;
  }
  std::string unsupported(const PackedLayer& packed) const override {
    const std::string problem = without_cuda(packed);
    return problem.empty() ? LinearRunner::unsupported(packed) : problem;
  }
  std::unique_ptr<LinearOperator> make_rotation(const Rotation& rotation) override {
    throw cannot_run(PackedFactor(rotation));
  }
  std::unique_ptr<LinearOperator> make_trellis(const PackedTrellis&) override {
    throw cannot_run(PackedFactor(PackedTrellis()));
  }
  int threads() const override { return threads_; }
  std::string kernels() const override { return "cuda"; }

 private:
  const Target target_;
  const int threads_;
};

}  // namespace

void check_cuda(const char* problem) {
  if (problem != nullptr) throw Error(ErrorCode::kFailure, std::string("CUDA: ") + problem);
}

const CudaApi& cuda_kernels() {
  static const CudaApi* api = [] {
    std::string why;
    const CudaApi* found = kernels::cuda::load_cuda_kernels(&why);
    if (found == nullptr) {
      throw Error(ErrorCode::kFailure, "cannot load the CUDA kernels: " + why,
                  "build billm where nvcc 13 is, or use --device cpu");
    }
    return found;
  }();
  return *api;
}

c10::Device resolve_running_device(const std::string& name, const PackedModules& packed) {
  std::string problem;
  for (const std::string& module : packed.names()) {
    const std::string what = without_cuda(packed.description(module));
    if (!what.empty()) problem = module + " is " + what;
  }
  if (problem.empty()) return resolve_device(name, DeviceUse::kKernels);
  if (name == "cuda") {
    throw Error(ErrorCode::kFailure, "device cuda: " + problem, "use --device cpu");
  }
  if (resolve_device(name).is_cuda()) {
    log_warning("the CPU is used instead of the GPU: " + problem);
  }
  return c10::Device(c10::kCPU);
}

std::unique_ptr<LinearRunner> make_cuda_runner(c10::Device device, int threads) {
  return make_cuda_runner(cuda_kernels(), device, threads);
}

std::unique_ptr<LinearRunner> make_cuda_runner(const CudaApi& api, c10::Device device,
                                               int threads) {
  return std::make_unique<CudaRunner>(Target{api, device}, threads);
}

}  // namespace billm
