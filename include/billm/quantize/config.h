// What a method needs to know besides the weight and the Hessian. Every field is a setting that the
// manifest records and --resume compares.
#pragma once

#include <optional>
#include <string>

#include "billm/codes/region_codes.h"

namespace billm {

enum class SearchObjective { kWeights, kSaliency };  // kSaliency: as published
enum class Feedback { kColumns, kBlocks, kNone };    // form (i), form (ii), none
enum class SalientMetric { kHessian, kMagnitude };   // PB-LLM: w^2 R_jj^2, |w|

struct MethodConfig {
  std::string method = "billm";
  int block_size = 128;
  NmPattern nm;                      // STBLLM; {0, 0} elsewhere
  std::string nm_alloc = "uniform";  // or "adaptive": the layers' N differ
  bool reference = false;            // --compat reference: published search and feedback
  ScaleFormat scale_format = ScaleFormat::kLog8;
  OffsetKind offset_kind = OffsetKind::kNone;
  Feedback feedback = Feedback::kColumns;
  SearchObjective objective = SearchObjective::kWeights;
  int refine_rounds = 4;               // alternating updates of scales and codes; 0: none
  bool descend = true;                 // coordinate descent of the codes inside a round
  std::optional<int> classes;          // K and S of RegionFormat; see classes_of() for
  std::optional<int> salient_classes;  // what holds if they are not given
  int column_rounds = 1;    // ARB: times that codes are found anew for refitted column scales
  int max_salient = 49;     // largest number of salient columns tried per block
  std::optional<int> bits;  // RTN, GPTQ; not given: the method's smallest (bits_of)
  bool act_order = true;    // GPTQ: columns by descending diag H
  std::optional<double> salient_share;             // PB-LLM; not given: 0.1
  std::optional<SalientMetric> salient_metric;     // PB-LLM; not given: kHessian
  double damping = 0.01;                           // lambda / mean(diag H)
  int threads = 1;                                 // never changes the result
  const class RowShare* share = nullptr;           // several processes (row_share.h); nor does it
  const class Accelerator* accelerator = nullptr;  // a GPU; null: all on the CPU
};

}  // namespace billm
