// Codes of a layer on a trellis: the best path of each column group, with error feedback from group
// to group in the metric of the whole Hessian, then sweeps in which every group is coded again
// given all the others.
#pragma once

#include <vector>

#include "billm/codes/trellis.h"
#include "billm/quantize/context.h"
#include "billm/quantize/hessian.h"
#include "billm/quantize/methods.h"

namespace billm {

// rates: of the planes, each of which codes what the ones before left. Needs Hessian::factor.
TrellisCodes code_trellis(const WeightView& weight, const Hessian& hessian,
                          const std::vector<int>& rates, int sweeps,
                          const QuantizeContext& context);

}  // namespace billm
