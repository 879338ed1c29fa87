// See include/billm/base/printable.h.
#include "billm/base/printable.h"

#include "billm/base/utf8.h"

namespace billm {

std::string printable(std::string_view text) {
  constexpr size_t kLimit = 120;
  size_t size = text.size();
  if (size > kLimit) {
    size = kLimit;
    while (size > 0 && (static_cast<unsigned char>(text[size]) & 0xc0) == 0x80) --size;
  }
  // C1 controls (U+0080 to U+009F, C2 80 to C2 9F) steer terminals, too.
  const std::string valid = replace_invalid_utf8(text.substr(0, size));
  std::string result;
  for (size_t i = 0; i < valid.size(); ++i) {
    const auto byte = static_cast<unsigned char>(valid[i]);
    const bool c1 = byte == 0xc2 && static_cast<unsigned char>(valid[i + 1]) < 0xa0;
    result += byte < 0x20 || byte == 0x7f || c1 ? '?' : valid[i];
    if (c1) ++i;
  }
  if (size < text.size()) result += "...";
  return result;
}

}  // namespace billm
