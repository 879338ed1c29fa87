// Normalization: what happens to the text between added tokens before it is cut into words.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "unicode.h"

namespace billm::tokenizer {

// Every occurrence of `pattern` (not empty) becomes `content`.
struct ReplaceText {
  std::string pattern, content;
};
// `text` in front of everything that is not empty.
struct PrependText {
  std::string text;
};
using NormalizeStep = std::variant<NormalForm, ReplaceText, PrependText>;

std::string replace_all(std::string_view text, const ReplaceText& replace);
std::string normalize(const std::vector<NormalizeStep>& steps, std::string_view text);

}  // namespace billm::tokenizer
