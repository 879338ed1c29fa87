// tokenizer.json as plain data: checked, every kind that billm does not support refused.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tokenizer_split.h"
#include "tokenizer_unicode.h"

namespace billm::tokenizer {

struct BpeSpec {
  std::unordered_map<std::string, int32_t> vocab;  // tokens in the byte-level alphabet; ids differ
  std::vector<std::pair<std::string, std::string>> merges;  // best first
  std::optional<std::string> unknown_token;
  bool fuse_unknown = false;
  bool ignore_merges = false;  // a word that is a token is not merged
};

// One entry of added_tokens; its id follows from the vocabulary as in the library.
struct AddedToken {
  std::string content;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space behind it
  bool normalized = false;   // looked for in normalized text
  bool special = false;      // left out by decode(skip_special_tokens)
  bool operator==(const AddedToken&) const = default;
};

struct TokenizerSpec {
  BpeSpec bpe;
  std::vector<AddedToken> added;
  std::vector<NormalForm> normalizers;          // in order
  std::vector<SplitStep> steps;                 // in order, the byte-level one last
  std::vector<int32_t> prefix_ids, suffix_ids;  // of add_special_tokens
};

// Throws Error{kBadInput} whose message starts with `name`.
TokenizerSpec parse_tokenizer_json(std::string_view json, const std::string& name);

}  // namespace billm::tokenizer
