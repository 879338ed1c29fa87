// The settings of a run: what the manifest records and --resume compares.
#pragma once

#include <nlohmann/json.hpp>

#include "billm/checkpoint/checkpoint.h"
#include "billm/pipeline/quantize_model.h"

namespace billm {

// Everything that decides the bytes of the result.
nlohmann::ordered_json settings_json(const QuantizeRequest& request, const Checkpoint& source);

}  // namespace billm
