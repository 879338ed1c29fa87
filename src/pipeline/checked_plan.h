// What a run and its --dry-run check of the settings of single layers before anything is made.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "billm/model/family.h"
#include "billm/quantize/layer_plan.h"

namespace billm {

// The plan of `file` (--plan; `where`: its name). Throws Error for what read_plan() refuses, sizes
// that cannot be rotated, a target (--target-bits) out of reach and, if the run is tuned, layers
// that cannot be.
LayerPlan checked_plan(const ModelSpec& spec, const MethodConfig& run,
                       const nlohmann::ordered_json& file, const std::string& where,
                       const std::optional<double>& target_bits, bool tuned);

}  // namespace billm
