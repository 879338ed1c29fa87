// Configurations of methods: defaults, what was given, checks, JSON.
#include "billm/quantize/config.h"

#include <algorithm>
#include <set>
#include <string_view>

#include "setting_values.h"

namespace billm {
namespace {

constexpr double kMostPlannedBits = 4;

std::string flag_of(const Setting& setting) {
  return *setting.flag == 0 ? setting.name : setting.flag;
}

Error unused(const Setting& setting, const Method& method) {
  std::string others;
  for (const Method& other : methods()) {
    if (!uses(other, setting.name)) continue;
    others += (others.empty() ? "" : ", ") + std::string(other.name);
  }
  return usage_error(
      flag_of(setting) + ": --method " + method.name + " does not use it",
      others.empty() ? "leave it out" : "leave it out, or choose a method that does: " + others);
}

Error unmet(const Setting& setting, const Method& method, const SettingCondition& condition) {
  return usage_error(
      flag_of(setting) + ": --method " + method.name + " does not use it " + condition.otherwise,
      "leave it out");
}

bool applies(const SettingCondition& condition, const MethodConfig& config) {
  return condition.holds == nullptr || condition.holds(config);
}

bool is_given(const GivenSettings& given, const Setting& setting) {
  return std::any_of(given.begin(), given.end(),
                     [&](const auto& pair) { return pair.first == setting.name; });
}

// Those that the method does not have are passed over.
MethodConfig filled(const Method& method, const GivenSettings& given) {
  MethodConfig config(method.name);
  for (const auto& [name, value] : given) {
    if (uses(method, name)) set_value(find_setting(name), method, value, &config);
  }
  for (const Setting& setting : settings()) {
    if (is_given(given, setting)) continue;
    set_default(setting, default_of(setting, method, config), &config);
  }
  return config;
}

}  // namespace

MethodConfig::MethodConfig(const std::string& name) : method(name) {
  const Method& row = find_method(method);
  for (const Setting& setting : settings()) {
    set_default(setting, plain_default_of(setting, row), this);
  }
  for (const Setting& setting : settings()) {
    set_default(setting, default_of(setting, row, *this), this);
  }
}

MethodConfig configure(const std::string& name, const GivenSettings& given) {
  const Method& method = find_method(name);
  for (const auto& [key, value] : given) {
    const Setting& setting = find_setting(key);
    if (!uses(method, key)) throw unused(setting, method);
  }
  const MethodConfig config = filled(method, given);
  for (const auto& [key, value] : given) {
    const Setting& setting = find_setting(key);
    const SettingCondition condition = condition_of(setting, *find_use(method, key));
    if (!applies(condition, config)) throw unmet(setting, method, condition);
  }
  check_config(config);
  return config;
}

void check_config(const MethodConfig& config) {
  const Method& method = find_method(config.method);
  MethodConfig defaults = config;
  for (const Setting& setting : settings()) {
    const SettingUse* const use = find_use(method, setting.name);
    const SettingCondition condition =
        use == nullptr ? SettingCondition{} : condition_of(setting, *use);
    if (use == nullptr || !applies(condition, config)) {
      set_default(setting, default_of(setting, method, config), &defaults);
      if (same_value(setting, config, defaults)) continue;
      throw use == nullptr ? unused(setting, method) : unmet(setting, method, condition);
    }
    check_value(setting, method, config);
  }
  for (const Setting& setting : settings()) {
    if (setting.check != nullptr && uses(method, setting.name)) setting.check(config);
  }
}

MethodConfig layer_config(const MethodConfig& run, const nlohmann::ordered_json& own) {
  const Method& method = find_method(own.value("method", run.method));
  const bool same = run.method == method.name;
  MethodConfig config(method.name);
  std::set<std::string_view> fixed;  // what does not derive from others
  for (const Setting& setting : settings()) {
    const SettingUse* const use = find_use(method, setting.name);
    if (use == nullptr) continue;
    const auto value = own.find(setting.name);
    if (value != own.end()) {
      set_default(setting, value_of(*value), &config);
    } else {
      const Method& of_run = find_method(run.method);
      if (!(same || setting.whole_run) || !uses(of_run, setting.name)) continue;
      MethodConfig defaults = run;
      set_default(setting, default_of(setting, of_run, run), &defaults);
      if (same && same_value(setting, run, defaults)) continue;
      const nlohmann::ordered_json of_all = setting_json(setting, run);
      set_default(setting, value_of(of_all), &config);
    }
    fixed.insert(setting.name);
  }
  for (const Setting& setting : settings()) {
    const SettingUse* const use = find_use(method, setting.name);
    if (use == nullptr) continue;
    const bool used = applies(condition_of(setting, *use), config);
    if (used && fixed.count(setting.name) > 0) continue;
    if (!used && own.contains(setting.name)) continue;  // check_layer_settings() refuses it
    set_default(setting, default_of(setting, method, config), &config);
  }
  return config;
}

namespace {

// A layer whose method has no use for a setting of the run, such as the published code for
// corrected targets, would get what the run makes all the same.
void check_follows_run(const MethodConfig& run, const MethodConfig& config, const Method& method) {
  for (const Setting& setting : settings()) {
    if (!setting.whole_run || !uses(find_method(run.method), setting.name)) continue;
    const SettingUse* const use = find_use(method, setting.name);
    if (use == nullptr || same_value(setting, run, config)) continue;
    const SettingCondition condition = condition_of(setting, *use);
    // Round to nearest has no use for weighted sums.
    if (!applies(condition, config) && method.needs_factor) throw unmet(setting, method, condition);
  }
}

}  // namespace

void check_layer_settings(const MethodConfig& run, const nlohmann::ordered_json& own) {
  const Method& method = find_method(own.value("method", run.method));
  MethodConfig values(method.name);
  for (const auto& [name, value] : own.items()) {
    if (name == "method") continue;
    const Setting& setting = find_setting(name);
    if (!uses(method, name)) throw unused(setting, method);
    if (setting.whole_run) {
      const bool of_run = uses(find_method(run.method), name);
      throw usage_error(name + ": is the same for all layers of a run",
                        of_run ? "give " + flag_of(setting) : "leave it out");
    }
    // What a method plans goes a little beyond what all layers together may have.
    const bool planned = name == "bits" && method.plan_bits != nullptr;
    if (planned && value.is_number() && value > 0 && value <= kMostPlannedBits) continue;
    set_value(setting, method, value_of(value), &values);
  }
  MethodConfig config = layer_config(run, own);
  for (const auto& [name, value] : own.items()) {
    if (name == "method") continue;
    const Setting& setting = find_setting(name);
    const SettingCondition condition = condition_of(setting, *find_use(method, name));
    if (!applies(condition, config)) throw unmet(setting, method, condition);
  }
  check_follows_run(run, config, method);
  if (method.plan_bits != nullptr) config.bits = MethodConfig(method.name).bits;
  check_config(config);
}

nlohmann::ordered_json config_json(const MethodConfig& config) {
  const Method& method = find_method(config.method);
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const Setting& setting : settings()) {
    if (uses(method, setting.name) || setting.unused == Setting::Unused::kDefault) {
      json[setting.name] = setting_json(setting, config);
    } else if (setting.unused == Setting::Unused::kNull) {
      json[setting.name] = nullptr;
    }
  }
  return json;
}

MethodConfig config_from_json(const std::string& name, const nlohmann::ordered_json& json) {
  GivenSettings given;
  for (const Setting& setting : settings()) {
    const auto found = json.find(setting.name);
    if (found == json.end() || found->is_null()) continue;
    given.emplace_back(setting.name, value_of(*found));
  }
  const MethodConfig config = filled(find_method(name), given);
  check_config(config);
  return config;
}

}  // namespace billm
