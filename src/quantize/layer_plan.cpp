// See include/billm/quantize/layer_plan.h.
#include "billm/quantize/layer_plan.h"

#include <fnmatch.h>

#include <algorithm>

#include "billm/base/error.h"
#include "billm/base/json_text.h"
#include "billm/base/printable.h"
#include "billm/quantize/settings.h"

namespace billm {
namespace {

using Json = nlohmann::ordered_json;

bool leaves_as_it_is(const Json& settings) {
  const auto bits = settings.find("bits");
  return bits != settings.end() && *bits == kUnquantizedBits;
}

void check_settings(const Json& settings, const std::string& where, const MethodConfig& config) {
  if (!settings.is_object() || settings.empty()) {
    throw bad_input(where + ": expected an object such as {\"bits\": 2}, got " +
                    printable(dump_json(settings)));
  }
  const auto method = settings.find("method");
  if (method != settings.end() && !method->is_string()) {
    throw bad_input(where + ": method: expected the name of a method, got " +
                    printable(method->dump()));
  }
  if (leaves_as_it_is(settings)) {
    if (settings.size() == 1) return;
    throw bad_input(where +
                    ": expected \"bits\": 16, which leaves a layer as it is, without others");
  }
  try {
    check_layer_settings(config, settings);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kUsage) throw;
    throw bad_input(where + ": " + error.what(), error.hint());
  }
}

}  // namespace

bool stays(const LayerPlan& plan, const std::string& module) {
  const auto planned = plan.find(module);
  return planned != plan.end() && leaves_as_it_is(planned->second);
}

bool follows_run(const LayerPlan& plan, const std::string& module, const std::string& setting) {
  const auto planned = plan.find(module);
  if (planned == plan.end()) return true;
  const Json& own = planned->second;
  return !leaves_as_it_is(own) && !own.contains("method") && !own.contains(setting);
}

MethodConfig planned_config(const MethodConfig& config, const LayerPlan& plan,
                            const std::string& module) {
  const auto planned = plan.find(module);
  return planned == plan.end() ? config : layer_config(config, planned->second);
}

LayerPlan read_plan(const Json& file, const std::string& where,
                    const std::vector<std::string>& modules, const MethodConfig& config) {
  LayerPlan plan;
  if (file.is_null()) return plan;
  for (const auto& [pattern, settings] : file.items()) {
    const std::string here = where + ": " + printable(pattern);
    check_settings(settings, here, config);
    Json own = settings;
    if (own.value("method", "") == config.method) own.erase("method");
    const bool text = pattern.find('\0') == std::string::npos;  // no name has a NUL
    bool found = false;
    for (const std::string& module : modules) {
      if (!text || fnmatch(pattern.c_str(), module.c_str(), 0) != 0) continue;
      plan[module] = own;
      if (own.empty()) plan.erase(module);
      found = true;
    }
    if (!found) {
      throw bad_input(here + ": no layer of the model has such a name",
                      "layers are named as " + modules.front());
    }
  }
  const auto left = [&](const std::string& module) { return stays(plan, module); };
  if (std::all_of(modules.begin(), modules.end(), left)) {
    throw bad_input(where + ": leaves all layers as they are", "there is nothing to quantize");
  }
  return plan;
}

}  // namespace billm
