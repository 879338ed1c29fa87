// Unicode for the tokenizer: UTF-8, normalization forms, the byte-level alphabet, and the bridge
// between the Unicode version of the reference library and that of the PCRE2 at hand.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace billm::tokenizer {

// The code point at `position` of well-formed UTF-8; moves `position` behind it.
char32_t next_code_point(std::string_view text, size_t& position);
void append_utf8(char32_t code_point, std::string& out);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
std::string normalize(NormalForm form, std::string_view text);

// GPT-2's alphabet: each byte written as one printable character.
const std::array<std::string, 256>& byte_symbols();
// The bytes that a token of that alphabet stands for; nothing if it holds another character.
std::optional<std::string> symbols_to_bytes(std::string_view token);

// White_Space of Unicode, what \s means to the library's added tokens.
bool is_white_space(char32_t code_point);

// `text` with every character that PCRE2 may class otherwise than the library replaced by one of
// the same UTF-8 length and of the class the library gives it: match on this, cut `text`.
std::string with_stand_ins(std::string_view text);
// True if a literal character range of a pattern covers a replaced character or a replacement.
bool covers_stand_in(char32_t first, char32_t last);

}  // namespace billm::tokenizer
