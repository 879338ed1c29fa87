// See setting_flags.h.
#include "setting_flags.h"

#include <algorithm>

namespace billm {

void SettingFlags::add_to(CLI::App& app, bool expert, const std::string& group) {
  for (const Setting& setting : settings()) {
    if (*setting.flag == 0 || setting.expert != expert) continue;
    Flag& flag = flags_.emplace_back(Flag{&setting, "", nullptr});
    const std::string value = setting_value_name(setting), help = setting_help(setting);
    if (value.empty()) {
      flag.option = app.add_flag(setting.flag, help)->disable_flag_override();
    } else {
      flag.option = app.add_option(setting.flag, flag.text, help)->type_name(value);
    }
    flag.option->group(group);
  }
}

GivenSettings SettingFlags::given() const {
  GivenSettings given;
  for (const Flag& flag : flags_) {
    if (flag.option->count() == 0) continue;
    const bool* const initial = std::get_if<bool>(&flag.setting->value);
    given.emplace_back(flag.setting->name, initial != nullptr
                                               ? SettingValue(!*initial)
                                               : SettingValue(std::string_view(flag.text)));
  }
  return given;
}

bool SettingFlags::has(std::string_view name) const {
  return std::any_of(flags_.begin(), flags_.end(), [&](const Flag& flag) {
    return flag.setting->name == name && flag.option->count() > 0;
  });
}

}  // namespace billm
