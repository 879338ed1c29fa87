// Whether text is UTF-8.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace billm {

// Offset of the first byte that is not part of well-formed UTF-8; npos if there is none.
size_t find_invalid_utf8(std::string_view text);
// Every ill-formed part (maximal subpart rule) replaced by U+FFFD.
std::string replace_invalid_utf8(std::string_view bytes);

}  // namespace billm
