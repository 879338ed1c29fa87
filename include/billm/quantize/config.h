// What decides the codes of a layer besides its weight and its Hessian. Every member is a row of
// the settings table (settings.h), where its flag, default, range and JSON name stand; the manifest
// records all of them and --resume compares them.
#pragma once

#include <string>

#include "billm/codes/layer_codes.h"

namespace billm {

enum class SearchObjective { kWeights, kSaliency };  // kSaliency: as published
enum class Feedback { kColumns, kBlocks, kNone };    // form (i), form (ii), none
enum class SalientMetric { kHessian, kMagnitude };   // PB-LLM: w^2 R_jj^2, |w|
enum class RotatedSides { kNone, kIn, kBoth };       // kBoth: of inputs and outputs
enum class Targets { kOwn, kCorrected };             // targets.h
enum class NmAllocation { kUniform, kAdaptive };     // whether the layers' N differ

struct MethodConfig {
  // The method's own defaults. A setting whose default follows another one (--block-size of arb) is
  // not moved by a later assignment: configure() of settings.h takes several settings at once.
  // Throws Error{kUsage} if there is no such method.
  explicit MethodConfig(const std::string& method = "billm");
  bool operator==(const MethodConfig&) const = default;

  std::string method;
  bool reference = false;  // --compat reference: published search and feedback
  NmPattern nm;            // STBLLM; {0, 0} elsewhere
  NmAllocation nm_alloc = {};
  int block_size = 0;  // columns of a quantization group, which share scales
  ScaleFormat scale_format = {};
  OffsetKind offset_kind = {};
  Feedback feedback = {};
  SearchObjective objective = {};
  int refine_rounds = 0;  // alternating updates of scales and codes; 0: none
  bool descend = false;   // coordinate descent of the codes inside a round
  int classes = 0;        // K and S of RegionFormat; 0: the method has none
  int salient_classes = 0;
  int column_rounds = 0;     // ARB: times that codes are found anew for refitted column scales
  int max_salient = 0;       // largest number of salient columns tried per group
  double bits = 0;           // of a weight; 0: the method has no such setting
  int sweeps = 0;            // trellis: times that every group is coded again given the others
  bool act_order = false;    // GPTQ: columns by descending diag H
  double salient_share = 0;  // PB-LLM: of the weights
  SalientMetric salient_metric = {};  // PB-LLM
  RotatedSides rotate = {};           // the basis in which W is quantized (rotated.h)
  int rotate_seed = 0;                // 0..2^31 - 1
  double damping = 0;                 // lambda / mean(diag H)
  Targets targets = {};
  double target_share = 0, stream_share = 0;  // alpha and rho of targets.h
  double target_ridge = 0;                    // ridge / mean(diag H)
  int sink_weight = 0;  // times that a token with massive activations counts in H (sinks.h)
};

}  // namespace billm
