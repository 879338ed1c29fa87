// What a run decides for single layers before it quantizes the first block. The journal records it,
// so that --resume does not decide again.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "billm/quantize/config.h"

namespace billm {

// By module: the settings that the layer has in place of the run's, by their names in the manifest:
// {"nm": "4:8"} where N is allocated (allocation.h). A module that is not there has the run's.
using LayerPlan = std::map<std::string, nlohmann::ordered_json>;

// The settings of one layer.
MethodConfig planned_config(const MethodConfig& config, const LayerPlan& plan,
                            const std::string& module);

}  // namespace billm
