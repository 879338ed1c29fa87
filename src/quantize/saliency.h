// Salient columns (BiLLM section 3.2): per quantization group the columns of largest saliency,
// their number chosen by the error that the two column sets have when each is fitted with its own
// levels.
#pragma once

#include <cstdint>
#include <vector>

#include "billm/quantize/methods.h"

namespace billm {

// [cols]: 1 = salient. `keep` ([rows, cols], 0 pruned) may be empty. The error is taken on about 32
// rows, evenly spaced: the choice is shared by all rows of a group. Objective kSaliency, for
// ablations, searches on the saliencies (w R_jj)^2 in place of the weights, as the published code
// does.
std::vector<uint8_t> choose_salient(const WeightView& weight, const Hessian& hessian,
                                    const std::vector<uint8_t>& keep, const RegionFormat& shape,
                                    SearchObjective objective, int max_salient, int threads);

}  // namespace billm
