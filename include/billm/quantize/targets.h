// Corrected targets: the weights that a layer's codes are fitted to, so that the layer makes up for
// the errors of the quantized layers before it. GPTAQ (arXiv 2504.02692) in closed form: from the
// present inputs X [tokens, cols] the layer should give what the original gives on the original's
// inputs Xo, and where its output is added to the residual stream also what the stream has lost, D
// [tokens, rows] (CalibrationStats). With H = X^T X, C = Xo^T X and s = ridge * mean(diag H):
//
//   W' = W + alpha (W (C + s I) (H + s I)^-1 - W) + rho D^T X (H + s I)^-1
//
// The two shares are below 1 since the regression also learns the noise of a short text
// (docs/decisions/0020-targets.md).
#pragma once

#include <span>
#include <vector>

#include "billm/calibrate/stats.h"
#include "billm/quantize/methods.h"

namespace billm {

// W' of layers that read the same inputs, [rows, cols] each; alpha, rho and ridge are those of
// `config`. In double, rounded once; the same at any thread count on the same kind of CPU
// (kernels/cpu/dense.h). Throws Error{kFailure} if `stats` has no cross sums, for sums that are not
// finite, and if H + s I cannot be factored. Memory besides the result: 8 (cols^2 + all rows * 2
// cols) bytes, or 16 cols^2 and half of the rest.
std::vector<std::vector<float>> corrected_targets(std::span<const WeightView> weights,
                                                  const CalibrationStats& stats,
                                                  const MethodConfig& config, int threads);

}  // namespace billm
