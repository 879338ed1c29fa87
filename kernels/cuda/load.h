// Finds the CUDA kernels on the machine that runs the program.
#pragma once

#include <string>

#include "kernels/cuda/cuda_api.h"

namespace billm::kernels::cuda {

// The functions of the library beside the program, which stays loaded; null if it cannot be loaded,
// and `why`.
const CudaApi* load_cuda_kernels(std::string* why);

}  // namespace billm::kernels::cuda
