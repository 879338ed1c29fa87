// Packed linears on a CUDA device.
#pragma once

#include <memory>

#include "billm/model/linear_operator.h"

namespace billm {

// See make_runner().
std::unique_ptr<LinearRunner> make_cuda_runner(c10::Device device, int threads);

}  // namespace billm
