// A Jinja program in one spelling, so that programs which differ in layout alone compare equal:
// - tokens inside {{ }} and {% %} separated by one space, comments gone, whitespace control applied
//   (with transformers' trim_blocks and lstrip_blocks) to the text between the tags;
// - literals in single quotes with \n, \t, \\ and \' escaped, those joined by + merged;
// - a["b"] is a.b.
#pragma once

#include <string>
#include <string_view>

namespace billm::tokenizer {

// "" if it does not even consist of well-formed tags, literals and text.
std::string jinja_shape(std::string_view program);

}  // namespace billm::tokenizer
