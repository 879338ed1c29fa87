// See layer_plan.h.
#include "layer_plan.h"

#include "billm/quantize/methods.h"

namespace billm {

MethodConfig planned_config(const MethodConfig& config, const LayerPlan& plan,
                            const std::string& module) {
  MethodConfig result = config;
  const auto planned = plan.find(module);
  if (planned == plan.end()) return result;
  if (planned->second.contains("nm")) {
    result.nm = parse_nm(planned->second.at("nm").get<std::string>());
  }
  if (planned->second.contains("bits")) result.bits = planned->second.at("bits").get<double>();
  return result;
}

}  // namespace billm
