// What --dry-run prints, of billm quantize and of billm distill.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "billm/pipeline/estimate.h"
#include "billm/pipeline/learn_estimate.h"
#include "billm/report/report.h"

namespace billm {

// `parts`: the texts of a mixture, if it is one.
void print_estimate(const Estimate& estimate, const EstimateRequest& request,
                    const std::vector<CalibrationPart>& parts);
nlohmann::ordered_json estimate_json(const Estimate& estimate);

void print_estimate(const DistillEstimate& estimate, const DistillConfig& config, int threads,
                    const std::vector<CalibrationPart>& parts);
nlohmann::ordered_json estimate_json(const DistillEstimate& estimate);

}  // namespace billm
