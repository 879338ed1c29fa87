// Where the parts of a layer lie in the one piece of device memory that it is given. Plain C++: the
// copies are the caller's.
#pragma once

#include "kernels/cuda/layer_plan.h"

namespace billm::kernels::cuda {

inline constexpr int64_t kPartAlignment = 256;

// Bytes that the layer needs; the memory must be aligned to kPartAlignment.
int64_t layer_memory_bytes(const PlaneTilesView& view, const LayerPlan& plan);

// The layer with pointers into `memory`. copy(to, from, bytes) returns null or what went wrong,
// which is returned in `problem`; then nothing more is copied.
using CopyIn = const char* (*)(void* to, const void* from, int64_t bytes, void* context);
DeviceLayer layer_in_memory(const PlaneTilesView& view, const LayerPlan& plan, void* memory,
                            CopyIn copy, void* context, const char** problem);

// The bytes of planes, levels and integers, which are read for one product; not what places and
// columns need, which is a small share and the same for all tiles.
int64_t weight_bytes(const PlaneTilesView& view);

}  // namespace billm::kernels::cuda
