// What `billm quantize --help` says about a setting.
#include <algorithm>

#include "setting_values.h"

namespace billm {
namespace {

void append(std::string* text, const std::string& separator, const std::string& more) {
  if (more.empty()) return;
  *text += (text->empty() ? "" : separator) + more;
}

// The range if it differs between methods, the method's default and condition: "1..4, default 1".
std::string detail(const Setting& setting, const Method& method, bool with_range) {
  const SettingUse& use = *find_use(method, setting.name);
  std::string text;
  if (with_range) append(&text, ", ", range_of(setting, method).text());
  if (!std::holds_alternative<bool MethodConfig::*>(setting.member)) {
    append(&text, ", ", "default " + text_of(plain_default_of(setting, method)));
    if (use.derived.value != nullptr) append(&text, ", ", use.derived.text);
  }
  if (use.condition.holds != nullptr) append(&text, ", not ", use.condition.otherwise);
  return text;
}

}  // namespace

// "Bits of a weight (rtn: 1..4, default 1; gptq: 2..4, default 2)".
std::string setting_help(const Setting& setting) {
  std::vector<const Method*> with;
  for (const Method& method : methods()) {
    if (uses(method, setting.name)) with.push_back(&method);
  }
  std::string text;
  const auto range_text = [&](const Method* method) {
    const Range range = range_of(setting, *method);
    return range.empty() ? "" : range.text();
  };
  const bool one_range = std::all_of(with.begin(), with.end(), [&](const Method* method) {
    return range_text(method) == range_text(with.front());
  });
  if (one_range && !with.empty()) append(&text, "; ", range_text(with.front()));
  // Methods of which the same is to be said stand together.
  std::vector<std::pair<std::string, std::string>> groups;  // detail, methods
  for (const Method* method : with) {
    const std::string said = detail(setting, *method, !one_range);
    auto group = std::find_if(groups.begin(), groups.end(),
                              [&](const auto& other) { return other.first == said; });
    if (group == groups.end()) group = groups.insert(group, {said, ""});
    append(&group->second, ", ", method->name);
  }
  const bool all = with.size() == methods().size() && groups.size() == 1;
  for (const auto& [said, names] : groups) {
    std::string part = all ? "" : names;
    append(&part, ": ", said);
    append(&text, "; ", part);
  }
  append(&text, "; ", setting.derived.text);
  if (setting.condition.holds != nullptr) append(&text, "; not ", setting.condition.otherwise);
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
