// What every row of the settings table must have, for every method.
#include <gtest/gtest.h>

#include <set>

#include "billm/base/error.h"
#include "billm/base/json_text.h"
#include "billm/quantize/methods.h"
#include "src/quantize/setting_values.h"

namespace billm::test {
namespace {

std::string where(const Method& method, const Setting& setting) {
  return std::string(method.name) + ", " + setting.name;
}

TEST(EverySetting, HasNameFlagAndHelp) {
  std::set<std::string> names, flags;
  for (const Setting& setting : settings()) {
    SCOPED_TRACE(setting.name);
    EXPECT_TRUE(names.insert(setting.name).second);
    EXPECT_EQ(&find_setting(setting.name), &setting);
    EXPECT_EQ(std::string(setting.name).find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_"),
              std::string::npos);
    EXPECT_GT(std::string(setting.help).size(), 10u);
    EXPECT_EQ(std::string(setting.help).find('\n'), std::string::npos);
    EXPECT_EQ(setting_help(setting).rfind(setting.help, 0), 0u);
    const bool is_switch = std::holds_alternative<bool MethodConfig::*>(setting.member);
    EXPECT_EQ(setting_value_name(setting).empty(), is_switch);
    if (const auto* named = std::get_if<ChoiceMember>(&setting.member)) {
      EXPECT_GE(named->choices.size(), 2u);
    }
    EXPECT_EQ(setting.condition.holds == nullptr, *setting.condition.otherwise == 0);
    const std::string flag = setting.flag;
    if (flag.empty()) continue;
    EXPECT_EQ(flag.rfind("--", 0), 0u);
    EXPECT_TRUE(flags.insert(flag).second) << flag;
    if (is_switch) {
      EXPECT_EQ(std::get<bool>(setting.value), flag.rfind("--no-", 0) == 0) << flag;
    }
  }
}

TEST(EverySetting, IsUsedAndHasARangeAndADefaultThatItAllows) {
  std::set<std::string> used;
  for (const Method& method : methods()) {
    std::set<std::string> own;
    for (const SettingUse& use : method.settings) {
      const Setting& setting = find_setting(use.name);  // throws for a name without a row
      SCOPED_TRACE(where(method, setting));
      EXPECT_TRUE(own.insert(use.name).second);
      used.insert(use.name);
      EXPECT_EQ(use.condition.holds == nullptr, *use.condition.otherwise == 0);
      const bool is_number = std::holds_alternative<int MethodConfig::*>(setting.member) ||
                             std::holds_alternative<double MethodConfig::*>(setting.member);
      const Range range = range_of(setting, method);
      EXPECT_EQ(range.empty(), !is_number);
      if (is_number) {
        EXPECT_LT(range.low, range.high);
      }
      if (std::holds_alternative<int MethodConfig::*>(setting.member)) {
        EXPECT_TRUE(range.whole);
      }
      MethodConfig config(method.name);
      EXPECT_NO_THROW(set_value(setting, method, plain_default_of(setting, method), &config));
    }
    EXPECT_NO_THROW(check_config(MethodConfig(method.name))) << method.name;
    EXPECT_EQ(uses(method, "damping"), method.needs_factor) << method.name;
  }
  for (const Setting& setting : settings()) EXPECT_EQ(used.count(setting.name), 1u) << setting.name;
}

TEST(EverySetting, IsRefusedAtItsDefaultByMethodsThatIgnoreIt) {
  for (const Method& method : methods()) {
    for (const Setting& setting : settings()) {
      if (uses(method, setting.name)) continue;
      SCOPED_TRACE(where(method, setting));
      try {
        configure(method.name, {{setting.name, setting.value}});
        ADD_FAILURE() << "no error";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kUsage);
        const std::string start = *setting.flag == 0 ? setting.name : setting.flag;
        EXPECT_EQ(error.message(), start + ": --method " + method.name + " does not use it");
        EXPECT_EQ(error.hint().rfind("leave it out", 0), 0u);
      }
    }
  }
}

// Values that the setting may have in some method.
std::vector<SettingValue> values(const Setting& setting, const Method& method) {
  if (const auto* named = std::get_if<ChoiceMember>(&setting.member)) {
    std::vector<SettingValue> all;
    for (const Choice& choice : named->choices) all.emplace_back(std::string_view(choice.name));
    return all;
  }
  if (std::holds_alternative<bool MethodConfig::*>(setting.member)) return {true, false};
  if (std::holds_alternative<NmPattern MethodConfig::*>(setting.member)) return {"2:4", "4:8"};
  const Range range = range_of(setting, method);
  if (range.whole) {
    const int low = static_cast<int>(range.low);
    return {low, low + 1, static_cast<int>(range.high)};
  }
  return {(range.low + range.high) / 2, range.high};
}

// Configurations with this value: with nothing else, or with what else it needs (a seed needs the
// choice that draws). Empty: it contradicts the other defaults (3 salient classes where there are
// 2).
std::vector<MethodConfig> configurations(const Setting& setting, SettingValue value,
                                         const Method& method) {
  std::vector<GivenSettings> tries = {{{setting.name, value}}};
  for (const SettingUse& use : method.settings) {
    const Setting& other = find_setting(use.name);
    if (&other == &setting || !std::holds_alternative<ChoiceMember>(other.member)) continue;
    for (const SettingValue& choice : values(other, method)) {
      tries.push_back({{setting.name, value}, {other.name, choice}});
    }
  }
  for (const GivenSettings& given : tries) {
    try {
      return {configure(method.name, given)};
    } catch (const Error&) {
    }
  }
  return {};
}

TEST(EverySetting, ThatIsUsedGoesThroughJson) {
  for (const Method& method : methods()) {
    for (const SettingUse& use : method.settings) {
      const Setting& setting = find_setting(use.name);
      SCOPED_TRACE(where(method, setting));
      const MethodConfig defaults(method.name);
      int changed = 0;
      for (const SettingValue& value : values(setting, method)) {
        for (const MethodConfig& config : configurations(setting, value, method)) {
          changed += !same_value(setting, config, defaults);
          const auto json = parse_ordered_json(dump_json(config_json(config)));
          ASSERT_TRUE(json.contains(setting.name));
          EXPECT_EQ(json[setting.name], setting_json(setting, config));
          EXPECT_EQ(config_from_json(method.name, json), config);
          MethodConfig as_text = defaults;  // as on the command line
          const std::string text = text_of(value);
          set_value(setting, method, std::string_view(text), &as_text);
          EXPECT_TRUE(same_value(setting, as_text, config)) << text;
        }
      }
      EXPECT_GE(changed, 1) << "no other value is accepted";
    }
    const MethodConfig defaults(method.name);
    EXPECT_EQ(config_from_json(method.name, nlohmann::ordered_json::object()), defaults);
    EXPECT_EQ(config_from_json(method.name, config_json(defaults)), defaults);
  }
}

TEST(EverySetting, NumbersOutOfRangeAreRefused) {
  for (const Method& method : methods()) {
    for (const SettingUse& use : method.settings) {
      const Setting& setting = find_setting(use.name);
      const Range range = range_of(setting, method);
      if (range.empty()) continue;
      for (const double value : {range.low - 1, range.high + 1}) {
        try {
          configure(method.name, {{setting.name, value}});
          ADD_FAILURE() << where(method, setting) << ": no error";
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), ErrorCode::kUsage);
          const std::string start = *setting.flag == 0 ? setting.name : setting.flag;
          EXPECT_EQ(error.message().rfind(start + " ", 0), 0u) << error.message();
          EXPECT_NE(error.message().find(": expected "), std::string::npos);
          EXPECT_NE(error.message().find(range.text()), std::string::npos) << error.message();
        }
      }
    }
  }
}

}  // namespace
}  // namespace billm::test
