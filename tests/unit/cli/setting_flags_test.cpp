// The settings table on the command line of `billm quantize`: every flag is explained, and every
// method refuses what it would ignore, before anything is read.
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "billm/base/error.h"
#include "billm/quantize/methods.h"
#include "src/cli/command.h"

namespace billm {
namespace {

// The message and the hint of the run, which must fail with wrong usage.
std::string refusal(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"--model", "/nonexistent", "--quiet"});
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
  CLI::App app("test");
  const std::function<void()> run = setup_quantize(app);
  app.parse(arguments);
  try {
    run();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage) << error.message();
    return error.message() + "\n" + error.hint();
  }
  return "no error";
}

std::string default_text(const Setting& setting) {
  if (const auto* text = std::get_if<std::string_view>(&setting.value)) return std::string(*text);
  if (const auto* real = std::get_if<double>(&setting.value)) return std::to_string(*real);
  if (const auto* whole = std::get_if<int>(&setting.value)) return std::to_string(*whole);
  return "4:8";
}

TEST(SettingFlags, EveryOneIsExplained) {
  CLI::App app("test");
  setup_quantize(app);
  const std::string help = app.help();
  for (const Setting& setting : settings()) {
    if (*setting.flag == 0) continue;
    const std::string value = setting_value_name(setting);
    EXPECT_NE(help.find("  " + std::string(setting.flag) + (value.empty() ? "" : " " + value)),
              std::string::npos)
        << setting.flag;
    EXPECT_NE(help.find(setting_help(setting)), std::string::npos) << setting.flag;
  }
}

TEST(SettingFlags, EveryMethodRefusesWhatItIgnores) {
  for (const Method& method : methods()) {
    for (const Setting& setting : settings()) {
      if (*setting.flag == 0 || uses(method, setting.name)) continue;
      std::vector<std::string> arguments = {"--method", method.name, setting.flag};
      if (!setting_value_name(setting).empty()) arguments.push_back(default_text(setting));
      for (const bool dry : {false, true}) {
        if (dry) arguments.emplace_back("--dry-run");
        const std::string line = refusal(arguments);
        EXPECT_EQ(line.rfind(std::string(setting.flag) + ": --method " + method.name +
                                 " does not use it\nleave it out",
                             0),
                  0u)
            << line;
      }
    }
  }
}

TEST(SettingFlags, EveryValueIsChecked) {
  for (const Method& method : methods()) {
    for (const SettingUse& use : method.settings) {
      const Setting& setting = find_setting(use.name);
      if (*setting.flag == 0 || setting_value_name(setting).empty()) continue;
      for (const char* value : {"nonsense", "-1", "nan", "1e99"}) {
        const std::string line =
            refusal({"--method", method.name, std::string(setting.flag) + "=" + value});
        EXPECT_EQ(line.rfind(std::string(setting.flag) + " " + value + ": expected ", 0), 0u)
            << line;
      }
    }
  }
}

}  // namespace
}  // namespace billm
