// What single layers are quantized with in place of the run's settings: what a user says with
// --plan, what a method plans for all layers together (Method::plan_bits), N of N:M where it is
// allocated. It is made before the first block; the journal records it, so that --resume does not
// decide again, and the manifest, whose "plan" may be given back as a file.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "billm/quantize/config.h"

namespace billm {

// By module: the layer's settings by their names in the manifest, and "method" where it is another
// than the run's. {"bits": 16}: the layer stays as it is. A module that is not there has the run's.
using LayerPlan = std::map<std::string, nlohmann::ordered_json>;

inline constexpr int kUnquantizedBits = 16;

// Whether the layer stays as it is.
bool stays(const LayerPlan& plan, const std::string& module);

// Whether the layer is quantized by the run's method, with the run's value of this setting.
bool follows_run(const LayerPlan& plan, const std::string& module, const std::string& setting);

// The settings of a layer that is quantized. Throws Error{kUsage} as configure() does.
MethodConfig planned_config(const MethodConfig& config, const LayerPlan& plan,
                            const std::string& module);

// The plan of a file (null: none) {PATTERN: {SETTING: VALUE, ...}, ...}, a pattern being a module's
// name with *, ? and [] as in a shell. The last one that matches a layer holds. Throws
// Error{kBadInput} that starts with `where` for what is not such a file, for settings that
// check_layer_settings() refuses, for a pattern that no module matches, and if all layers stay.
LayerPlan read_plan(const nlohmann::ordered_json& file, const std::string& where,
                    const std::vector<std::string>& modules, const MethodConfig& config);

}  // namespace billm
