// ATen's threads and the choice of device: see include/billm/model/runtime.h.
#include "billm/model/runtime.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <dlfcn.h>
#include <malloc.h>

#include <filesystem>

#include "billm/base/error.h"
#include "billm/base/log.h"
#include "billm/base/parallel.h"
#include "kernels/cuda/load.h"

namespace billm {
namespace {

// libtorch_cuda.so lies beside the libtorch_cpu.so that this process runs.
std::filesystem::path cuda_library() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&at::set_num_threads), &info) == 0 ||
      info.dli_fname == nullptr) {
    return {};
  }
  return std::filesystem::path(info.dli_fname).parent_path() / "libtorch_cuda.so";
}

// Empty if CUDA can be used, else why not. The driver is looked for first: without one the 0.8 s
// and 480 MB of libtorch_cuda would be spent for nothing.
std::string why_no_cuda() {
  if (dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL) == nullptr) {
    return "no NVIDIA driver (libcuda.so.1)";
  }
  const std::filesystem::path library = cuda_library();
  if (!std::filesystem::exists(library)) return "this LibTorch has no libtorch_cuda.so";
  if (dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    const char* reason = dlerror();
    return std::string("cannot load libtorch_cuda.so: ") + (reason ? reason : "unknown");
  }
  if (!at::hasCUDA() || at::detail::getCUDAHooks().deviceCount() == 0) return "no CUDA device";
  return "";
}

// The same of the kernels on a device.
std::string why_no_kernels(int device) {
  std::string why;
  const kernels::cuda::CudaApi* const api = kernels::cuda::load_cuda_kernels(&why);
  if (api == nullptr) return why;
  const char* const problem = api->use_device(device);
  return problem == nullptr ? "" : problem;
}

}  // namespace

void init_torch() {
  static const bool once = [] {
#ifdef __GLIBC__
    // By default glibc moves these limits up to 32 and 64 MB as large buffers are freed, and then
    // keeps fragments of logits and activations in every thread's arena: evaluating the demo model
    // with 2 threads peaked at 669 MB instead of 502 MB, at the same CPU time within 3 %.
    mallopt(M_MMAP_THRESHOLD, 8 << 20);
    mallopt(M_TRIM_THRESHOLD, 32 << 20);
#endif
    set_thread_start([] { at::set_num_threads(1); });
    return true;
  }();
  (void)once;
}

DeviceChoice choose_device(const std::string& name, const std::string& no_device,
                           const std::function<std::string()>& no_kernels) {
  const bool automatic = name == "auto";
  if (!no_device.empty()) {
    if (automatic) return {};
    throw Error(ErrorCode::kFailure, "device cuda: " + no_device, "use --device cpu");
  }
  const std::string reason = no_kernels();
  if (reason.empty()) return {true, ""};
  const std::string message = "cannot load the CUDA kernels: " + reason;
  const std::string hint = "build billm where nvcc 13 is";
  if (automatic)
    return {false, "the CPU is used instead of the GPU: " + message + " (" + hint + ")"};
  throw Error(ErrorCode::kFailure, message, hint + ", or use --device cpu");
}

c10::Device resolve_device(const std::string& name, DeviceUse use, int index) {
  if (name == "cpu") return c10::Device(c10::kCPU);
  if (name != "auto" && name != "cuda") {
    throw Error(ErrorCode::kUsage, "device: expected auto, cpu or cuda, got " + name);
  }
  const std::string no_device = why_no_cuda();
  const int64_t devices = no_device.empty() ? at::detail::getCUDAHooks().deviceCount() : 1;
  const auto chosen = static_cast<int>(index % devices);
  const DeviceChoice choice = choose_device(name, no_device, [&]() -> std::string {
    return use == DeviceUse::kKernels ? why_no_kernels(chosen) : "";
  });
  if (!choice.warning.empty()) log_warning(choice.warning);
  if (!choice.cuda) return c10::Device(c10::kCPU);
  // fp32 as on the CPU: TF32 rounds every factor to 11 bits.
  at::globalContext().setAllowTF32CuBLAS(false);
  return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(chosen));
}

at::Tensor to_device(const at::Tensor& host, c10::Device device) {
  if (!device.is_cuda()) return host.to(device);
  at::Tensor pinned;
  try {
    pinned = host.pin_memory();
  } catch (const c10::Error&) {  // as much as the system lets be locked
    return host.to(device);
  }
  return pinned.to(device, host.scalar_type(), /*non_blocking=*/true);
}

}  // namespace billm
