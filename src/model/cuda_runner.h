// Packed linears on a CUDA device.
#pragma once

#include <memory>

#include "billm/model/linear_operator.h"
#include "kernels/cuda/cuda_api.h"

namespace billm {

// See make_runner().
std::unique_ptr<LinearRunner> make_cuda_runner(c10::Device device, int threads);

// With the functions of `api`, which must outlive the runner; tests give those of an emulated GPU
// and ATen's CPU device.
std::unique_ptr<LinearRunner> make_cuda_runner(const kernels::cuda::CudaApi& api,
                                               c10::Device device, int threads);

}  // namespace billm
