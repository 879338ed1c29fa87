// Codes rows of a layer on a GPU, group by group, from host memory to host memory.
#pragma once

#include <cstdint>
#include <functional>

#include "kernels/cuda/cuda_api.h"

namespace billm::kernels::cuda {

// All pointers are to the memory of the host.
struct CoderJob {
  int device = 0;
  int block_size = 0;  // at most kMaxCodedWidth
  // What CoderParams says of the layer (but for `inverse`) and of how it is coded; rounding.log8
  // may be null. The group and the results are left out.
  CoderParams layer;
  uint8_t* region = nullptr;  // [rows, cols]
  uint8_t* code = nullptr;    // [rows, cols]
  float* levels = nullptr;    // [groups][rows][kRowLevels]
  // Called where the device has no memory left, before it is asked once more; may be empty.
  std::function<void()> make_room;
};

// How many rows a block of threads codes, a warp for each: as many as `shared_bytes` hold, at most
// eight; 0 if not even one.
int coder_warps(int width, int shared_bytes);

// Memory of the device: the factor and about 10 bytes a weight. Returns null, or what went wrong;
// the text is valid as those of CudaApi are.
const char* code_layer(const CudaApi& api, const CoderJob& job);

}  // namespace billm::kernels::cuda
