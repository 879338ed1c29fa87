// Warnings: one line each on stderr, through spdlog. Apart from headers of LibTorch, which carries
// a fmt of its own that does not fit spdlog's.
#pragma once

#include <string>

namespace billm {

// "billm: warning: TEXT"
void log_warning(const std::string& text);

}  // namespace billm
