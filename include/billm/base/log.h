// Warnings and notes: one line each on stderr, through spdlog. Apart from headers of LibTorch,
// which carries a fmt of its own that does not fit spdlog's.
#pragma once

#include <string>

namespace billm {

// "billm: warning: TEXT"
void log_warning(const std::string& text);

// "billm: info: TEXT"; the caller is silent under --quiet.
void log_info(const std::string& text);

}  // namespace billm
