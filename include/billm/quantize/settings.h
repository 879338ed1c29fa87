// The settings table: one row for everything that can be set about a method. The flags of `billm
// quantize` and their help, the checks with their error lines, the settings in the manifest and the
// comparison of --resume all come from it. Which rows a method uses stands in its row of the method
// table (methods.h), with what it has of its own: default, range, condition.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "billm/quantize/config.h"

namespace billm {

// A value that was given. Text stands for the name of a choice, for N:M, and for a number or a
// switch (true, false) as on the command line; it is not owned. monostate: none.
using SettingValue = std::variant<std::monostate, bool, int, double, std::string_view>;

// Numbers that a setting may have.
struct Range {
  double low = 0, high = 0;
  bool whole = true;         // integers only
  bool without_low = false;  // low itself is not in it
  double step = 0;           // multiples of it only; 0: any
  bool empty() const { return low == high; }
  bool holds(double value) const;  // false for NaN
  std::string text() const;        // "0..100", "above 0 and up to 0.5"
};
constexpr Range integers(int low, int high) { return {.low = double(low), .high = double(high)}; }
constexpr Range reals(double low, double high) {
  return {.low = low, .high = high, .whole = false};
}
constexpr Range steps(double step, double low, double high) {
  return {.low = low, .high = high, .whole = false, .step = step};
}
constexpr Range reals_above(double low, double high) {
  return {.low = low, .high = high, .whole = false, .without_low = true};
}

struct Choice {
  const char* name;
  int value;  // of the member's type
};
// A member with names: an enumeration, or a bool whose values have names.
struct ChoiceMember {
  std::span<const Choice> choices;
  int (*get)(const MethodConfig& config);
  void (*set)(MethodConfig* config, int value);
};
// Where the setting is in MethodConfig, which says its type: integer, real, switch, N:M, choice.
using SettingMember = std::variant<int MethodConfig::*, double MethodConfig::*,
                                   bool MethodConfig::*, NmPattern MethodConfig::*, ChoiceMember>;

// When a method that knows a setting uses it. `otherwise` follows "does not use it" in messages and
// "not" in the help: "with --compat reference".
struct SettingCondition {
  bool (*holds)(const MethodConfig& config) = nullptr;  // null: always
  const char* otherwise = "";
};

// A default that follows other settings: `own` is the method's plain default.
struct DerivedDefault {
  SettingValue (*value)(const MethodConfig& config, SettingValue own) = nullptr;
  const char* text = "";  // for the help, after the plain default
};

struct Setting {
  const char* name;  // in JSON: persisted, never renamed
  // "--refine". A switch has the flag that turns its default over ("--no-descend"). Empty: no user
  // gives it; a plan of the run does, for each layer.
  const char* flag;
  const char* help;  // one line, without default, range and methods
  SettingMember member;
  SettingValue value;  // default; also what the configuration of a method without it holds
  DerivedDefault derived = {};
  Range range = {};                 // of numbers
  SettingCondition condition = {};  // for every method that does not say its own
  // What a range cannot say. Throws Error{kUsage}.
  void (*check)(const MethodConfig& config) = nullptr;
  bool expert = true;      // ablations and comparison: a group of its own in --help
  bool whole_run = false;  // the same for all layers: none has its own (layer_plan.h)
  // What JSON says of methods without it.
  enum class Unused { kOmitted, kNull, kDefault } unused = Unused::kOmitted;
};

// A setting that a method uses, and what differs from the setting's row.
struct SettingUse {
  const char* name;
  SettingValue value = {};  // monostate: the row's
  DerivedDefault derived = {};
  Range range = {};
  SettingCondition condition = {};
};

std::span<const Setting> settings();
// Throws Error{kUsage} for an unknown name.
const Setting& find_setting(std::string_view name);

struct Method;
bool uses(const Method& method, std::string_view name);
// The numbers that the method allows; empty if the setting is no number.
Range range_of(const Setting& setting, const Method& method);

using GivenSettings = std::vector<std::pair<std::string, SettingValue>>;  // by Setting::name

// The method's defaults but for what was given. Throws Error{kUsage} that names the flag: for a
// setting that the method would ignore (whatever the value), for a value of a wrong kind or out of
// range, for settings that contradict each other.
MethodConfig configure(const std::string& method, const GivenSettings& given);
// The same checks of a configuration. What the method would ignore must have its default.
void check_config(const MethodConfig& config);

// The configuration of one layer of a run: `own` are its settings by name and, where it is another
// than the run's, its "method". Another method has its own defaults but for the settings of the
// whole run. Of the same method the run's hold, and what derives from others is derived anew.
MethodConfig layer_config(const MethodConfig& run, const nlohmann::ordered_json& own);
// Throws Error{kUsage} unless `own` is what layer_config() can use, as configure() does, and for a
// setting of the whole run.
void check_layer_settings(const MethodConfig& run, const nlohmann::ordered_json& own);

// The setting in JSON; null for N:M of a method without.
nlohmann::ordered_json setting_json(const Setting& setting, const MethodConfig& config);
// All settings by name, in the table's order, as the manifest has them. Not the method's name.
nlohmann::ordered_json config_json(const MethodConfig& config);
// The reverse; settings that the method does not use are passed over, those that are not there have
// their default. Throws Error{kUsage} as configure() does.
MethodConfig config_from_json(const std::string& method, const nlohmann::ordered_json& json);

// What --help says: the setting's line; its methods, range and defaults.
std::string setting_help(const Setting& setting);
// What stands for the value in --help: "N", "X", "N:M", "columns|blocks|none"; empty: a switch.
std::string setting_value_name(const Setting& setting);

// Parses "4:8". Throws Error{kUsage}.
NmPattern parse_nm(const std::string& text);

}  // namespace billm
