// --target-bits: the rate of every layer, from where the error of a uniform result comes.
#pragma once

#include "billm/quantize/layer_plan.h"
#include "quantize_job.h"

namespace billm {

// Quantizes all layers at the run's bits into a directory of the unfinished result (or goes on with
// that, or takes it as it is, with --resume), measures restoring_gains() on the first kGainWindows
// calibration sequences, and allocates: `given` with the bits of every layer that it does not say.
// To be called by all processes. Leaves a journal, so that --resume finds what was made.
inline constexpr int64_t kGainWindows = 8;
LayerPlan plan_target_bits(QuantizeJob& job, const LayerPlan& given);

// A layer's gain as it is used: the mean over the layers of its kind up to kGainNeighbours blocks
// away, since single gains are noisy; those of the first and the last block stand for themselves.
// `gains`, by module: of the layers that are quantized.
inline constexpr int64_t kGainNeighbours = 4;
std::map<std::string, double> smoothed_gains(const ModelSpec& spec,
                                             const std::map<std::string, double>& gains);

}  // namespace billm
