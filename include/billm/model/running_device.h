// The device on which a packed model's linears are run.
#pragma once

#include <c10/core/Device.h>

#include <string>

#include "billm/pack/packed_checkpoint.h"

namespace billm {

// resolve_device(name, DeviceUse::kKernels), but a product of factors runs on the CPU only: for a
// model that has one "cuda" throws Error{kFailure} and "auto" takes the CPU, with a warning where
// there is a GPU.
c10::Device resolve_running_device(const std::string& name, const PackedModules& packed);

}  // namespace billm
