// Values of single settings: read, written, checked.
#pragma once

#include <string>

#include "billm/base/error.h"
#include "billm/quantize/methods.h"

namespace billm {

inline Error usage_error(const std::string& message, const std::string& hint = "") {
  return Error(ErrorCode::kUsage, message, hint);
}

// The method's use of the setting; null: it has none.
const SettingUse* find_use(const Method& method, std::string_view name);
SettingCondition condition_of(const Setting& setting, const SettingUse& use);
DerivedDefault derived_default_of(const Setting& setting, const Method& method);
// Without what it derives from other settings.
SettingValue plain_default_of(const Setting& setting, const Method& method);
// With it, for the settings of `config`.
SettingValue default_of(const Setting& setting, const Method& method, const MethodConfig& config);

// Throws Error{kUsage} for a value of another kind or out of the method's range.
void set_value(const Setting& setting, const Method& method, SettingValue value,
               MethodConfig* config);
// As set_value(), of defaults, which a method without the setting has outside its range.
void set_default(const Setting& setting, SettingValue value, MethodConfig* config);
// Throws Error{kUsage} if the value in `config` is out of the method's range.
void check_value(const Setting& setting, const Method& method, const MethodConfig& config);
bool same_value(const Setting& setting, const MethodConfig& x, const MethodConfig& y);

// The value that a JSON value says, whose text it refers to; monostate for what no setting can be.
SettingValue value_of(const nlohmann::ordered_json& json);

// For messages: "8", "0.1", "reference".
std::string text_of(const SettingValue& value);

}  // namespace billm
