// What `billm quantize --help` says about a setting.
#include <algorithm>

#include "setting_values.h"

namespace billm {
namespace {

void append(std::string* text, const std::string& separator, const std::string& more) {
  if (more.empty()) return;
  *text += (text->empty() ? "" : separator) + more;
}

// "1..4, default 1, only with --bits 1".
std::string detail(const Setting& setting, const Method& method, const SettingUse& use) {
  std::string text;
  const Range range = range_of(setting, method);
  if (!range.empty()) append(&text, ", ", range.text());
  if (!std::holds_alternative<bool MethodConfig::*>(setting.member)) {
    append(&text, ", ", "default " + text_of(plain_default_of(setting, method)));
    const DerivedDefault derived = derived_default_of(setting, method);
    if (derived.value != nullptr) append(&text, ", ", derived.text);
  }
  if (use.condition.holds != nullptr) append(&text, ", only ", use.condition.text);
  return text;
}

}  // namespace

std::string setting_help(const Setting& setting) {
  // Methods of which the same is to be said stand together.
  std::vector<std::pair<std::string, std::string>> groups;  // detail, methods
  bool all = true;
  for (const Method& method : methods()) {
    const SettingUse* const use = find_use(method, setting.name);
    if (use == nullptr) {
      all = false;
      continue;
    }
    const std::string text = detail(setting, method, *use);
    auto group = std::find_if(groups.begin(), groups.end(),
                              [&](const auto& other) { return other.first == text; });
    if (group == groups.end()) group = groups.insert(group, {text, ""});
    append(&group->second, ", ", method.name);
  }
  std::string text;
  for (const auto& [detail, names] : groups) {
    std::string part = all && groups.size() == 1 ? "" : names;
    append(&part, ": ", detail);
    append(&text, "; ", part);
  }
  if (setting.condition.holds != nullptr) {
    append(&text, "; ", std::string("only ") + setting.condition.text);
  }
  return setting.help + (text.empty() ? "" : " (" + text + ")");
}

std::string setting_value_name(const Setting& setting) {
  if (std::holds_alternative<bool MethodConfig::*>(setting.member)) return "";
  if (std::holds_alternative<NmPattern MethodConfig::*>(setting.member)) return "N:M";
  const auto* named = std::get_if<ChoiceMember>(&setting.member);
  if (named == nullptr)
    return std::holds_alternative<int MethodConfig::*>(setting.member) ? "N" : "X";
  std::string names;
  for (const Choice& choice : named->choices) append(&names, "|", choice.name);
  return names;
}

}  // namespace billm
