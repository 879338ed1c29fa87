// See setting_values.h; and the JSON form of a setting.
#include "setting_values.h"

#include <array>
#include <charconv>
#include <cmath>
#include <optional>

#include "billm/base/printable.h"

namespace billm {
namespace {

template <typename... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};
template <typename... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;

std::string number_text(double value) {
  if (value == std::floor(value) && std::fabs(value) < 1e15) {  // not 1e+05
    return std::to_string(static_cast<int64_t>(value));
  }
  std::array<char, 32> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  return {text.data(), end};
}

std::optional<double> number_of(const SettingValue& value) {
  if (const auto* whole = std::get_if<int>(&value)) return *whole;
  if (const auto* real = std::get_if<double>(&value)) return *real;
  const auto* text = std::get_if<std::string_view>(&value);
  if (text == nullptr) return {};
  double number = 0;
  const auto read = std::from_chars(text->data(), text->data() + text->size(), number);
  if (read.ec != std::errc{} || read.ptr != text->data() + text->size()) return {};
  return number;
}

std::optional<bool> switch_of(const SettingValue& value) {
  if (const auto* on = std::get_if<bool>(&value)) return *on;
  const auto* text = std::get_if<std::string_view>(&value);
  if (text != nullptr && *text == "true") return true;
  if (text != nullptr && *text == "false") return false;
  return {};
}

std::string given(const Setting& setting, const SettingValue& value) {
  return std::string(*setting.flag == 0 ? setting.name : setting.flag) + " " + text_of(value);
}

// `range`: null if it does not matter.
void assign(const Setting& setting, const SettingValue& value, const Range* range,
            const std::string& method, MethodConfig* config) {
  const auto number = [&] {
    const std::optional<double> got = number_of(value);
    if (got && (range == nullptr || range->holds(*got))) return *got;
    throw usage_error(given(setting, value) + ": expected " +
                      (range->whole ? "a whole number " : "a number ") + range->text() +
                      " with --method " + method);
  };
  std::visit(
      Overloaded{[&](int MethodConfig::*member) { config->*member = static_cast<int>(number()); },
                 [&](double MethodConfig::*member) { config->*member = number(); },
                 [&](bool MethodConfig::*member) {
                   const std::optional<bool> on = switch_of(value);
                   if (!on) throw usage_error(given(setting, value) + ": expected true or false");
                   config->*member = *on;
                 },
                 [&](NmPattern MethodConfig::*member) {
                   const auto* text = std::get_if<std::string_view>(&value);
                   const bool none =
                       range == nullptr && std::holds_alternative<std::monostate>(value);
                   config->*member = none ? NmPattern{} : parse_nm(text ? std::string(*text) : "");
                 },
                 [&](const ChoiceMember& member) {
                   const auto* text = std::get_if<std::string_view>(&value);
                   std::string known;
                   for (const Choice& choice : member.choices) {
                     if (text != nullptr && *text == choice.name)
                       return member.set(config, choice.value);
                     known += (known.empty() ? "" : ", ") + std::string(choice.name);
                   }
                   throw usage_error(given(setting, value) + ": expected one of " + known);
                 }},
      setting.member);
}

}  // namespace

bool Range::holds(double value) const {
  const bool within = value >= low && value <= high && !(without_low && value == low);
  const double place = step == 0 ? 0 : value / step;
  return within && (!whole || value == std::floor(value)) && place == std::floor(place);
}

std::string Range::text() const {
  if (step != 0) {
    return number_text(low) + ".." + number_text(high) + " in steps of " + number_text(step);
  }
  if (!without_low) return number_text(low) + ".." + number_text(high);
  return "above " + number_text(low) + " and up to " + number_text(high);
}

std::string text_of(const SettingValue& value) {
  return std::visit(Overloaded{[](std::monostate) { return std::string("none"); },
                               [](bool on) { return std::string(on ? "true" : "false"); },
                               [](int number) { return std::to_string(number); },
                               [](double number) { return number_text(number); },
                               [](std::string_view text) { return printable(text); }},
                    value);
}

const SettingUse* find_use(const Method& method, std::string_view name) {
  for (const SettingUse& use : method.settings) {
    if (name == use.name) return &use;
  }
  return nullptr;
}

bool uses(const Method& method, std::string_view name) { return find_use(method, name) != nullptr; }

Range range_of(const Setting& setting, const Method& method) {
  const SettingUse* const use = find_use(method, setting.name);
  return use != nullptr && !use->range.empty() ? use->range : setting.range;
}

SettingCondition condition_of(const Setting& setting, const SettingUse& use) {
  return use.condition.holds != nullptr ? use.condition : setting.condition;
}

DerivedDefault derived_default_of(const Setting& setting, const Method& method) {
  const SettingUse* const use = find_use(method, setting.name);
  if (use == nullptr) return {};
  return use->derived.value != nullptr ? use->derived : setting.derived;
}

SettingValue plain_default_of(const Setting& setting, const Method& method) {
  const SettingUse* const use = find_use(method, setting.name);
  const bool own = use != nullptr && !std::holds_alternative<std::monostate>(use->value);
  return own ? use->value : setting.value;
}

SettingValue default_of(const Setting& setting, const Method& method, const MethodConfig& config) {
  const SettingValue own = plain_default_of(setting, method);
  const DerivedDefault derived = derived_default_of(setting, method);
  return derived.value != nullptr ? derived.value(config, own) : own;
}

void set_value(const Setting& setting, const Method& method, SettingValue value,
               MethodConfig* config) {
  const Range range = range_of(setting, method);
  assign(setting, value, &range, method.name, config);
}

void set_default(const Setting& setting, SettingValue value, MethodConfig* config) {
  assign(setting, value, nullptr, config->method, config);
}

void check_value(const Setting& setting, const Method& method, const MethodConfig& config) {
  const nlohmann::ordered_json json = setting_json(setting, config);
  MethodConfig copy = config;
  set_value(setting, method, value_of(json), &copy);
}

bool same_value(const Setting& setting, const MethodConfig& x, const MethodConfig& y) {
  return std::visit(
      Overloaded{[&](const ChoiceMember& member) { return member.get(x) == member.get(y); },
                 [&](auto member) { return x.*member == y.*member; }},
      setting.member);
}

SettingValue value_of(const nlohmann::ordered_json& json) {
  if (json.is_boolean()) return json.get<bool>();
  if (json.is_number_integer()) return static_cast<double>(json.get<int64_t>());
  if (json.is_number()) return json.get<double>();
  if (json.is_string()) return std::string_view(json.get_ref<const std::string&>());
  return {};
}

nlohmann::ordered_json setting_json(const Setting& setting, const MethodConfig& config) {
  using json = nlohmann::ordered_json;
  return std::visit(
      Overloaded{[&](int MethodConfig::*member) { return json(config.*member); },
                 [&](double MethodConfig::*member) {
                   const double value = config.*member;
                   const bool whole = range_of(setting, find_method(config.method)).whole;
                   return whole && value == std::floor(value) ? json(static_cast<int>(value))
                                                              : json(value);
                 },
                 [&](bool MethodConfig::*member) { return json(config.*member); },
                 [&](NmPattern MethodConfig::*member) {
                   return (config.*member).active() ? json((config.*member).text()) : json(nullptr);
                 },
                 [&](const ChoiceMember& member) {
                   for (const Choice& choice : member.choices) {
                     if (member.get(config) == choice.value) return json(choice.name);
                   }
                   return json(nullptr);
                 }},
      setting.member);
}

NmPattern parse_nm(const std::string& text) {
  NmPattern nm;
  const char* end = text.data() + text.size();
  const auto n = std::from_chars(text.data(), end, nm.n);
  if (n.ec == std::errc{} && n.ptr != end && *n.ptr == ':') {
    const auto m = std::from_chars(n.ptr + 1, end, nm.m);
    if (m.ec == std::errc{} && m.ptr == end) {
      if (nm.m < 2 || nm.m > 16) {
        throw usage_error("--nm " + printable(text) + ": expected M in 2..16, got " +
                          std::to_string(nm.m));
      }
      if (nm.n < 1 || nm.n > nm.m) {
        throw usage_error("--nm " + printable(text) + ": expected N in 1.." + std::to_string(nm.m) +
                          ", got " + std::to_string(nm.n));
      }
      return nm;
    }
  }
  throw usage_error("--nm " + printable(text) +
                    ": expected N:M such as 4:8 (keep N of every M weights)");
}

}  // namespace billm
