// What must be set up once before ATen is used, and which device to use.
//
// Threads: all parallelism is billm::parallel_for over independent items (sequences, windows, row
// tiles). Inside an item ATen, MKL and OpenMP run on one thread, because the sums of a parallel
// matrix product depend on the number of threads; so results never depend on --threads.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <string>

namespace billm {

// Call before any tensor work, from the main thread; more calls do nothing. Sets ATen to one thread
// here and in every worker of parallel_for, and has the C library return large freed buffers to the
// system at once.
void init_torch();

// "cpu", "cuda", or "auto" (cuda where there is one, else cpu without a word). The CUDA side of
// LibTorch is loaded here and nowhere else. `index`: which of several devices. Throws
// Error{kFailure} if "cuda" is asked for and LibTorch's CUDA library, the driver or the device is
// missing, Error{kUsage} for another name.
c10::Device resolve_device(const std::string& name, int index = 0);

// `host`, a tensor of the CPU, on `device`. To a GPU it is copied from page-locked memory in ATen's
// current stream, and nothing waits for the copy; to the CPU it is not copied.
at::Tensor to_device(const at::Tensor& host, c10::Device device);

}  // namespace billm
