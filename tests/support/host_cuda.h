// The functions of kernels/cuda/cuda_api.h that coding a layer calls, in the memory of the host:
// its kernels run with one lane (OneLane: the CPU's order of sums), or thread by thread on the
// emulated GPU. The other functions are null.
#pragma once

#include "kernels/cuda/cuda_api.h"

namespace billm::test {

// How the calls of the thread went.
struct HostCuda {
  bool emulated = false;      // coming calls: threads of an emulated GPU
  int fail_after = -1;        // this many calls succeed; then all say "no more"; -1: all do
  int allocations_left = -1;  // then there is no memory until this is -1 again; -1: always
  int live_allocations = 0, row_launches = 0, feedback_launches = 0;
};
HostCuda& host_cuda();
const kernels::cuda::CudaApi& host_cuda_api();

}  // namespace billm::test
