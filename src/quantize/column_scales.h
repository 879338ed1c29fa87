// Column scales (ARB-LLM's RC form, arXiv 2410.03129): where they start, and their least-squares
// update for fixed codes.
#pragma once

#include <vector>

#include "billm/quantize/methods.h"

namespace billm {

// Scales in this range: it leaves least squares room on both sides within fp16's normal numbers.
inline constexpr float kSmallestColumnScale = 0x1p-10f, kLargestColumnScale = 0x1p+10f;

// [cols], exact in fp16: (mean |w| of the column / that of a typical column)^p with p = 0, 1/2 or
// 1, whichever leaves the least Hessian-weighted error when the magnitudes of about 32 rows are
// split in shape.classes levels. p = 0 (all ones) wins where columns do not differ.
std::vector<float> first_column_scales(const WeightView& weight, const Hessian& hessian,
                                       const RegionFormat& shape, int threads);

// For the codes and row scales of `linear`: the column scales of least tr(D H' D'), D = W - Q and
// H' = H + lambda I, in place and rounded to fp16; as they were if rounding would make it worse.
// Returns tr(D H' D') with the scales that are left.
double refit_columns(const WeightView& weight, const Hessian& hessian, int threads,
                     RegionCodes* linear);

}  // namespace billm
