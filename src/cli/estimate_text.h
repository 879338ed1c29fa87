// What --dry-run prints, of billm quantize and of billm distill.
#pragma once

#include <nlohmann/json.hpp>

#include "billm/pipeline/estimate.h"
#include "billm/pipeline/learn_estimate.h"

namespace billm {

void print_estimate(const Estimate& estimate, const EstimateRequest& request);
nlohmann::ordered_json estimate_json(const Estimate& estimate);

void print_estimate(const DistillEstimate& estimate, const DistillConfig& config, int threads);
nlohmann::ordered_json estimate_json(const DistillEstimate& estimate);

}  // namespace billm
