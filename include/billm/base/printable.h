// Untrusted text in messages.
#pragma once

#include <string>
#include <string_view>

namespace billm {

// Made fit for a one-line message: control characters replaced, cut at 120 bytes.
std::string printable(std::string_view text);

}  // namespace billm
