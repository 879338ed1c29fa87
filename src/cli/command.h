// The table of commands: one file each, one row each in commands.cpp.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <span>
#include <string>

namespace billm {

struct Command {
  const char* name;
  const char* summary;  // one line of `billm --help`
  // Adds the command's options to `app`; the result is what runs after parsing.
  std::function<void()> (*setup)(CLI::App& app);
};

std::span<const Command> commands();

std::function<void()> setup_quantize(CLI::App& app);
std::function<void()> setup_distill(CLI::App& app);
std::function<void()> setup_eval(CLI::App& app);
std::function<void()> setup_generate(CLI::App& app);
std::function<void()> setup_inspect(CLI::App& app);
std::function<void()> setup_export(CLI::App& app);
std::function<void()> setup_tokenize(CLI::App& app);
std::function<void()> setup_bench(CLI::App& app);

}  // namespace billm
