// What billm quantize --dry-run prints.
#pragma once

#include <nlohmann/json.hpp>

#include "billm/pipeline/estimate.h"

namespace billm {

void print_estimate(const Estimate& estimate, const EstimateRequest& request);
nlohmann::ordered_json estimate_json(const Estimate& estimate);

}  // namespace billm
