// See checked_plan.h.
#include "checked_plan.h"

#include "block_quantizer.h"
#include "target_bits.h"

namespace billm {

LayerPlan checked_plan(const ModelSpec& spec, const MethodConfig& run,
                       const nlohmann::ordered_json& file, const std::string& where,
                       const std::optional<double>& target_bits, bool tuned) {
  LayerPlan plan = read_plan(file, where, spec.modules(), run);
  check_rotations(spec, run, plan);
  if (target_bits) check_target_bits(spec, run, plan, *target_bits);
  if (tuned) check_tunable(spec, run, plan);
  return plan;
}

}  // namespace billm
