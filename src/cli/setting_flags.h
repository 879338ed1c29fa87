// The flags of the settings table (billm/quantize/settings.h) on a command line.
#pragma once

#include <CLI/CLI.hpp>
#include <deque>
#include <string>

#include "billm/quantize/settings.h"

namespace billm {

class SettingFlags {
 public:
  // Those for experts, or the others, in the group of that name.
  void add_to(CLI::App& app, bool expert, const std::string& group);
  // What the command line has, whether or not it is the default. The values refer to this object.
  GivenSettings given() const;
  // Whether it has the setting of this name.
  bool has(std::string_view name) const;

 private:
  struct Flag {
    const Setting* setting;
    std::string text;
    CLI::Option* option;
  };
  std::deque<Flag> flags_;  // CLI11 keeps the addresses of the texts
};

}  // namespace billm
