// See include/billm/base/utf8.h.
#include "billm/base/utf8.h"

namespace billm {
namespace {

// Length of the well-formed sequence at `position`; 0 if ill-formed, and then `bad` is the length
// of the maximal subpart to replace (Unicode 3.9, table 3-7).
size_t sequence_length(std::string_view text, size_t position, size_t& bad) {
  const auto byte = [&](size_t i) -> unsigned {
    return position + i < text.size() ? static_cast<unsigned char>(text[position + i]) : 0;
  };
  bad = 1;
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  const size_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  unsigned low = 0x80, high = 0xbf;
  if (lead == 0xe0) low = 0xa0;
  if (lead == 0xed) high = 0x9f;
  if (lead == 0xf0) low = 0x90;
  if (lead == 0xf4) high = 0x8f;
  for (size_t i = 1; i < length; ++i) {
    if (byte(i) < low || byte(i) > high) return 0;
    low = 0x80;
    high = 0xbf;
    bad = i + 1;
  }
  return length;
}

}  // namespace

size_t find_invalid_utf8(std::string_view text) {
  size_t bad;
  for (size_t position = 0; position < text.size();) {
    const size_t length = sequence_length(text, position, bad);
    if (length == 0) return position;
    position += length;
  }
  return std::string_view::npos;
}

std::string replace_invalid_utf8(std::string_view bytes) {
  std::string result;
  result.reserve(bytes.size());
  for (size_t position = 0; position < bytes.size();) {
    size_t bad;
    const size_t length = sequence_length(bytes, position, bad);
    if (length > 0) {
      result.append(bytes.substr(position, length));
    } else {
      result.append("\xef\xbf\xbd");
    }
    position += length > 0 ? length : bad;
  }
  return result;
}

}  // namespace billm
