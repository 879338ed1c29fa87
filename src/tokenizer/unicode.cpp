// UTF-8, normalization by ICU, and the byte-level alphabet: see unicode.h.
#include "unicode.h"

#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <climits>
#include <unordered_map>

#include "billm/base/error.h"

namespace billm::tokenizer {
namespace {

// The library normalizes by Unicode 9: a character added later is inert to it.
bool newer_than_unicode_9(char32_t code_point) {
  UVersionInfo age;
  u_charAge(static_cast<UChar32>(code_point), age);
  return age[0] > 9;
}

void check_icu(UErrorCode status) {
  if (U_FAILURE(status)) {
    throw Error(ErrorCode::kFailure,
                std::string("tokenizer: Unicode normalization failed: ") + u_errorName(status));
  }
}

const icu::Normalizer2& normalizer(NormalForm form) {
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* result = nullptr;
  switch (form) {
    case NormalForm::kNfc:
      result = icu::Normalizer2::getNFCInstance(status);
      break;
    case NormalForm::kNfd:
      result = icu::Normalizer2::getNFDInstance(status);
      break;
    case NormalForm::kNfkc:
      result = icu::Normalizer2::getNFKCInstance(status);
      break;
    case NormalForm::kNfkd:
      result = icu::Normalizer2::getNFKDInstance(status);
      break;
  }
  check_icu(status);
  return *result;
}

void normalize_known(NormalForm form, std::string_view text, std::string& out) {
  // ICU counts in int32, and NFKD makes one UTF-16 unit of a byte into 6 at most (U+FDFA: 18 of 3).
  if (text.size() > INT_MAX / 8) throw bad_input("text: too long to normalize in one piece");
  UErrorCode status = U_ZERO_ERROR;
  const auto source =
      icu::UnicodeString::fromUTF8({text.data(), static_cast<int32_t>(text.size())});
  normalizer(form).normalize(source, status).toUTF8String(out);
  check_icu(status);
}

}  // namespace

char32_t next_code_point(std::string_view text, size_t& position) {
  const auto byte = [&] { return static_cast<unsigned char>(text[position++]); };
  const unsigned lead = byte();
  if (lead < 0x80) return lead;
  const int more = lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
  char32_t value = lead & (0x3fu >> more);
  for (int i = 0; i < more; ++i) value = value << 6 | (byte() & 0x3fu);
  return value;
}

void append_utf8(char32_t c, std::string& out) {
  const auto put = [&](char32_t value) { out.push_back(static_cast<char>(value)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xc0 | c >> 6);
    put(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    put(0xe0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3f));
    put(0x80 | (c & 0x3f));
  } else {
    put(0xf0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3f));
    put(0x80 | (c >> 6 & 0x3f));
    put(0x80 | (c & 0x3f));
  }
}

std::string normalize(NormalForm form, std::string_view text) {
  std::string result;
  result.reserve(text.size());
  size_t known = 0;  // start of the run of characters that Unicode 9 has
  for (size_t position = 0; position < text.size();) {
    const size_t start = position;
    const char32_t code_point = next_code_point(text, position);
    if (code_point < 0x300 || !newer_than_unicode_9(code_point)) continue;
    normalize_known(form, text.substr(known, start - known), result);
    result.append(text.substr(start, position - start));
    known = position;
  }
  normalize_known(form, text.substr(known), result);
  return result;
}

const std::array<std::string, 256>& byte_symbols() {
  static const auto table = [] {
    std::array<std::string, 256> symbols;
    char32_t next = 256;
    for (unsigned b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b != 0xad);
      append_utf8(printable ? b : next++, symbols[b]);
    }
    return symbols;
  }();
  return table;
}

std::optional<std::string> symbols_to_bytes(std::string_view token) {
  static const auto table = [] {
    std::unordered_map<char32_t, char> bytes;
    for (unsigned b = 0; b < 256; ++b) {
      size_t position = 0;
      bytes[next_code_point(byte_symbols()[b], position)] = static_cast<char>(b);
    }
    return bytes;
  }();
  std::string result;
  for (size_t position = 0; position < token.size();) {
    const auto found = table.find(next_code_point(token, position));
    if (found == table.end()) return std::nullopt;
    result.push_back(found->second);
  }
  return result;
}

bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

}  // namespace billm::tokenizer
