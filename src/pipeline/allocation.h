// What differs from layer to layer: N of N:M (STBLLM section 3.3; layers with more outliers keep
// more), and the bits of methods that plan them.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "billm/quantize/layer_plan.h"
#include "original_pass.h"

namespace billm {

struct LayerOutliers {
  std::string module;
  int64_t weights = 0;
  double share = 0;  // of weights whose SI score exceeds 6 times the layer's mean score
};

// One pass of the original model: `hidden` are the inputs of its first block, and are left as
// something else.
std::vector<LayerOutliers> measure_outliers(const OriginalPass& pass, HiddenStates* hidden);

// Shares scaled to a range of 2 around the target N, rounded, clamped to 1..M, and repaired until
// the mean over weights is within 0.01 of N/M. module -> pattern.
std::map<std::string, NmPattern> allocate_nm(const std::vector<LayerOutliers>& layers,
                                             const NmPattern& target);

// Method::plan_bits for those of the model's linears that follow the run's bits in `plan`, in the
// order in which they are quantized, by module; empty if the method has none.
std::map<std::string, double> plan_bits(const ModelSpec& spec, const MethodConfig& config,
                                        const LayerPlan& plan);
// Warns of layers whose own bits in `plan` are fewer than their method can make.
void warn_of_planned_bits(const ModelSpec& spec, const MethodConfig& run, const LayerPlan& plan);

}  // namespace billm
