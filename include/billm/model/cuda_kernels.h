// The functions of libbillm_cuda.so.
#pragma once

#include "kernels/cuda/cuda_api.h"

namespace billm {

// Loads the library beside the program when it is first called. Throws Error{kFailure} where it is
// missing or of another version.
const kernels::cuda::CudaApi& cuda_kernels();

// Throws Error{kFailure} for what a function of the library says; null is nothing.
void check_cuda(const char* problem);

}  // namespace billm
