// Added tokens: strings that are cut out of the text before anything else happens to it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "spec.h"

namespace billm::tokenizer {

class AddedTokens {
 public:
  // Gives every token its id as the library does: the one it has in the vocabulary, else the next
  // free one. Throws Error{kBadInput} if two tokens read the same after normalization.
  explicit AddedTokens(const TokenizerSpec& spec);

  // A piece of a text: an added token, or (id -1) what lies between.
  struct Piece {
    int32_t id;
    size_t begin, end;
  };
  // Leftmost-longest matches among the tokens that are looked for before normalization, or behind.
  std::vector<Piece> find(std::string_view text, bool normalized) const;

  struct Entry {
    AddedToken token;
    std::string pattern;  // what is looked for: the content, normalized if asked
  };
  const std::unordered_map<int32_t, Entry>& by_id() const { return by_id_; }
  // The id of an added token; nothing for other strings.
  std::optional<int32_t> id_of(const std::string& content) const;
  bool is_special(const std::string& content) const { return special_.contains(content); }
  // How many of them are not in the model's vocabulary.
  int64_t count_new() const { return count_new_; }

 private:
  // A byte trie; node 0 is the root.
  struct Trie {
    std::unordered_map<uint64_t, uint32_t> children;  // node << 8 | byte
    std::vector<int32_t> ids = {-1};                  // of the token that ends in a node
    bool add(std::string_view pattern, int32_t id);
    // Longest token that starts at `position`: its id (-1: none) and `end`.
    int32_t longest(std::string_view text, size_t position, size_t& end) const;
  };
  std::unordered_map<std::string, int32_t> ids_;
  std::unordered_map<int32_t, Entry> by_id_;
  std::unordered_set<std::string> special_;
  Trie raw_, normalized_;
  int64_t count_new_ = 0;
};

}  // namespace billm::tokenizer
