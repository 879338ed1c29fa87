// --target-bits: the rate of every layer, from where the error of a uniform result comes.
#pragma once

#include <map>
#include <string>

#include "billm/model/family.h"
#include "billm/quantize/layer_plan.h"

namespace billm {

class QuantizeJob;

// Stored bits of a weight, in the mean over all layers, that rates can make; `run.bits` is the base
// rate and `plan` what the user says of single layers. Of layers whose bits are known only when
// they are quantized nothing is counted. Throws Error{kUsage} if the plan leaves no layer whose
// rate is to be found, or if the target is not in reach.
struct ReachableBits {
  double least = 0, most = 0;
};
ReachableBits check_target_bits(const ModelSpec& spec, const MethodConfig& run,
                                const LayerPlan& plan, double target);

// Quantizes all layers at the run's bits into a directory of the unfinished result (or goes on with
// that, or takes it as it is, with --resume), measures restoring_gains() on the first kGainWindows
// calibration sequences, and allocates: `given` with the bits of every layer that it does not say.
// To be called by all processes. Leaves a journal, so that --resume finds what was made.
inline constexpr int64_t kGainWindows = 8;
LayerPlan plan_target_bits(QuantizeJob& job, const LayerPlan& given);

// A layer's gain as it is used: the mean over the layers of its kind up to kGainNeighbours blocks
// away, since single gains are noisy; those of the first and the last block stand for themselves.
// `gains`, by module: of the layers whose rate is to be found.
inline constexpr int64_t kGainNeighbours = 4;
std::map<std::string, double> smoothed_gains(const ModelSpec& spec,
                                             const std::map<std::string, double>& gains);

}  // namespace billm
