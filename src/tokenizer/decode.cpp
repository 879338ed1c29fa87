// Decoding: see decode.h. The order and the odd corners are the library's.
#include "decode.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "billm/base/utf8.h"
#include "unicode.h"

namespace billm::tokenizer {
namespace {

using Strings = std::vector<std::string>;

std::string concatenated(const Strings& strings) {
  std::string result;
  for (const std::string& string : strings) result += string;
  return result;
}

// A token with a character outside the alphabet stands for its own UTF-8.
Strings apply(const ByteLevelDecode&, Strings tokens) {
  std::string bytes;
  for (const std::string& token : tokens) bytes += symbols_to_bytes(token).value_or(token);
  return {replace_invalid_utf8(bytes)};
}

Strings apply(const ReplaceText& step, Strings tokens) {
  for (std::string& token : tokens) token = replace_all(token, step);
  return tokens;
}

std::optional<char> fallback_byte(const std::string& token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  unsigned value = 0;
  const char* digits = token.data() + 3;
  const auto parsed = std::from_chars(digits, digits + 2, value, 16);
  if (parsed.ec != std::errc() || parsed.ptr != digits + 2) return std::nullopt;
  return static_cast<char>(value);
}

Strings apply(const ByteFallbackDecode&, Strings tokens) {
  Strings result;
  std::string bytes;
  const auto flush = [&] {
    if (bytes.empty()) return;
    if (find_invalid_utf8(bytes) == std::string::npos) {
      result.push_back(bytes);
    } else {
      result.insert(result.end(), bytes.size(), "\xef\xbf\xbd");
    }
    bytes.clear();
  };
  for (std::string& token : tokens) {
    if (const auto byte = fallback_byte(token)) {
      bytes += *byte;
    } else {
      flush();
      result.push_back(std::move(token));
    }
  }
  flush();
  return result;
}

Strings apply(const FuseDecode&, Strings tokens) { return {concatenated(tokens)}; }

Strings apply(const StripDecode& step, Strings tokens) {
  std::string content;
  append_utf8(step.content, content);
  for (std::string& token : tokens) {
    size_t begin = 0, end = token.size();
    for (size_t i = 0; i < step.start && token.compare(begin, content.size(), content) == 0; ++i) {
      begin += content.size();
    }
    for (size_t i = 0; i < step.stop && end - begin >= content.size() &&
                       token.compare(end - content.size(), content.size(), content) == 0;
         ++i) {
      end -= content.size();
    }
    token = token.substr(begin, end - begin);
  }
  return tokens;
}

Strings apply(const MetaspaceDecode& step, Strings tokens) {
  std::string replacement;
  append_utf8(step.replacement, replacement);
  bool first = true;
  for (std::string& token : tokens) {
    token = replace_all(token, {replacement, first && step.drop_in_first ? "" : " "});
    first = false;
  }
  return tokens;
}

}  // namespace

bool is_byte(const std::vector<DecodeStep>& steps, const std::string& token) {
  return fallback_byte(token).has_value() &&
         std::any_of(steps.begin(), steps.end(), [](const DecodeStep& step) {
           return std::holds_alternative<ByteFallbackDecode>(step);
         });
}

std::string decode(const std::vector<DecodeStep>& steps, std::vector<std::string> tokens) {
  for (const DecodeStep& step : steps) {
    tokens = std::visit([&](const auto& one) { return apply(one, std::move(tokens)); }, step);
  }
  return concatenated(tokens);
}

}  // namespace billm::tokenizer
