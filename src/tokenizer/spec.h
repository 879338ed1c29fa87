// A tokenizer as plain data: what the readers of the different files (readers.h) make and the rest
// of this folder works by.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "decode.h"
#include "normalize.h"
#include "split.h"

namespace billm::tokenizer {

struct BpeSpec {
  std::unordered_map<std::string, int32_t> vocab;           // ids differ
  std::vector<std::pair<std::string, std::string>> merges;  // best first
  std::optional<std::string> unknown_token;
  bool byte_level = false;     // tokens are written in the byte-level alphabet (unicode.h)
  bool fuse_unknown = false;   // one unknown token for a run of unknown characters
  bool byte_fallback = false;  // an unknown character becomes its bytes' tokens, "<0x0A>"
  bool ignore_merges = false;  // a word that is a token is not merged
};

// A string that is cut out of the text; its id follows from the vocabulary as in the library.
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
  std::vector<AddedToken> added;  // in the order in which they get ids; a later one replaces
  std::vector<NormalizeStep> normalizers;       // in order
  std::vector<SplitStep> steps;                 // in order; none: the whole text is one word
  std::vector<DecodeStep> decoders;             // in order
  std::vector<int32_t> prefix_ids, suffix_ids;  // of add_special_tokens
};

}  // namespace billm::tokenizer
