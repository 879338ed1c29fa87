// Decoding: from the tokens' strings back to text.
#pragma once

#include <cstddef>
#include <string>
#include <variant>
#include <vector>

#include "normalize.h"

namespace billm::tokenizer {

// The steps of the library's decoders; each makes a list of strings of a list of strings.
struct ByteLevelDecode {};     // one string of the bytes that the byte-level alphabet stands for
struct ByteFallbackDecode {};  // runs of "<0x0A>" become their bytes, or U+FFFD each if not UTF-8
struct FuseDecode {};          // one string
struct StripDecode {           // up to so many `content` off the ends of each string
  char32_t content;
  size_t start, stop;
};
struct MetaspaceDecode {
  char32_t replacement;  // becomes a space,
  bool drop_in_first;    // but nothing in the first string
};
using DecodeStep = std::variant<ByteLevelDecode, ReplaceText, ByteFallbackDecode, FuseDecode,
                                StripDecode, MetaspaceDecode>;

// All steps, then the strings one behind the other.
std::string decode(const std::vector<DecodeStep>& steps, std::vector<std::string> tokens);

// Whether ByteFallbackDecode is among the steps and makes a byte of this token.
bool is_byte(const std::vector<DecodeStep>& steps, const std::string& token);

}  // namespace billm::tokenizer
