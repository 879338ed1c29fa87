// Where a run keeps the hidden states of its calibration sequences between two blocks.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>

#include "billm/model/family.h"

namespace billm {

enum class HiddenPlace { kDevice, kMemory, kDisk };
const char* hidden_place_name(HiddenPlace place);  // "gpu", "memory", "disk"

// On a GPU `device` or else in memory, else on disk. On the GPU or in memory if `bytes` are at most
// a quarter of what is free there (for each of `processes` on this machine, which may share the
// GPU), and in memory only if `rest` has room beside them.
HiddenPlace choose_hidden_place(int64_t bytes, int64_t rest, c10::Device device, int processes);

// What a run takes besides, about: five blocks in fp32, as docs/measurements/scale.md has it for 7B
// to 70B.
int64_t beside_hidden_states(const ModelSpec& spec);

}  // namespace billm
