// Where a run keeps the hidden states of its calibration sequences between two blocks.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>

namespace billm {

enum class HiddenPlace { kDevice, kMemory, kDisk };
const char* hidden_place_name(HiddenPlace place);  // "gpu", "memory", "disk"

// On a GPU `device` or else in memory if `bytes` are at most a quarter of what is free there
// (available_memory() for each of `processes` on this machine), else on disk: so that what else a run
// needs, which is not asked for here, has its room too.
HiddenPlace choose_hidden_place(int64_t bytes, c10::Device device, int processes);

}  // namespace billm
