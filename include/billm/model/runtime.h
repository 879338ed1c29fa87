// What must be set up once before ATen is used, and which device to use.
//
// Threads: all parallelism is billm::parallel_for over independent items (sequences, windows, row
// tiles), or in generation a WorkerTeam over pieces of a pass. Inside an item ATen, MKL and OpenMP
// run on one thread, because the sums of a parallel matrix product depend on the number of threads;
// so results never depend on --threads.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <functional>
#include <string>

namespace billm {

// Call before any tensor work, from the main thread; more calls do nothing. Sets ATen to one thread
// here and in every worker of parallel_for, and has the C library return large freed buffers to the
// system at once.
void init_torch();

// What the program does on a device.
enum class DeviceUse {
  kTensors,  // ATen alone, or more where there is more
  kKernels,  // packed layers: libbillm_cuda.so too
};

// "cpu", "cuda", or "auto" (cuda where there is one, else cpu without a word; with a warning where
// only the kernels are missing). The CUDA side of LibTorch is loaded here and nowhere else.
// `index`: which of several devices. Throws Error{kFailure} if "cuda" is asked for and LibTorch's
// CUDA library, the driver, the device or the kernels are missing, Error{kUsage} for another name.
c10::Device resolve_device(const std::string& name, DeviceUse use = DeviceUse::kTensors,
                           int index = 0);

// What resolve_device() chooses. `no_device`: why CUDA cannot be used, empty if it can; the same of
// the kernels, asked for only if it matters.
struct DeviceChoice {
  bool cuda = false;
  std::string warning;
};
DeviceChoice choose_device(const std::string& name, const std::string& no_device,
                           const std::function<std::string()>& no_kernels);

// `host`, a tensor of the CPU, on `device`. To a GPU it is copied from page-locked memory in ATen's
// current stream, and nothing waits for the copy; to the CPU it is not copied.
at::Tensor to_device(const at::Tensor& host, c10::Device device);

}  // namespace billm
