// A CUDA library without a GPU: all functions of kernels/cuda/cuda_api.h in the memory of the host.
// Products run on the emulated GPU; time passes by the products that are queued.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/cuda_api.h"

namespace billm::test {

struct FakeCuda {
  bool blas = true;
  int fail_after = -1;  // so many calls succeed, then all say "no more"; -1: all do
  // Seconds that a product of a layer, of dense matrices takes.
  double layer_seconds = 2e-6, dense_seconds = 12e-6;
  double bandwidth = 1e12;

  double now = 0;
  int live = 0;          // allocations, layers, streams, graphs and timers that are not freed
  int64_t products = 0;  // of layers
  std::vector<const void*> weights;  // of the products, in their order
};
FakeCuda& fake_cuda();  // of the thread
const kernels::cuda::CudaApi& fake_cuda_api();

}  // namespace billm::test
