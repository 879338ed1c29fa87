// The engine of BiLLM, STBLLM and PB-LLM: binary regions with K magnitude levels per row,
// group and column set, coded with exact error feedback and refined by alternating updates.
#pragma once

#include <cstdint>
#include <vector>

#include "billm/quantize/methods.h"

namespace billm {

// What was decided before the codes: which weights are pruned and which columns are salient.
struct BinaryPlan {
  RegionFormat shape;
  std::vector<uint8_t> keep;     // [rows, cols]: 0 pruned; empty: nothing is
  std::vector<uint8_t> salient;  // [cols]; empty if shape.salient_classes = 0
  std::vector<uint8_t> integer;  // [rows, cols]: 1 = scattered integer; empty: there are none
};

// Per tile of 64 rows, independent of all others, per quantization group:
//  1. feedback of the earlier groups (LDLQ form of GPTQ, see Hessian);
//  2. levels from the magnitude split of the updated weights, weighted by R_jj^2;
//  3. codes (config.feedback: form (i) column by column, form (ii) group by group, or none);
//  4. config.refine_rounds times: levels by least squares under R_bb R_bb' for these codes
//     (ARB-LLM's X form for all levels of a row at once), rounded to their stored format, then
//     codes again; the best iterate of each row is kept.
// Scattered integers (plan.integer) are coded like the others from their fed-back targets, on one
// grid per row, and take part in the refinement.
RegionCodes code_binary(const WeightView& weight, const Hessian& hessian, const BinaryPlan& plan,
                        const MethodConfig& config, const QuantizeContext& context);

}  // namespace billm
