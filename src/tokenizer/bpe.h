// Byte-pair encoding of one word: over its raw bytes (byte-level) or over its characters.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "spec.h"

namespace billm::tokenizer {

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
template <typename Value>
using StringMap = std::unordered_map<std::string, Value, StringHash, std::equal_to<>>;

// Words already merged, for one call of encode.
using WordCache = StringMap<std::vector<int32_t>>;

class Bpe {
 public:
  // Throws Error{kBadInput} if a merge names a token that is not in the vocabulary.
  explicit Bpe(const BpeSpec& spec);
  // Appends the ids of `word` (well-formed UTF-8 or, byte-level, any bytes; not empty). O(n log n).
  void encode(std::string_view word, WordCache& cache, std::vector<int32_t>& ids) const;

 private:
  struct Merge {
    uint32_t rank;
    int32_t id;
  };
  const Merge* find_merge(int32_t left, int32_t right) const;
  void add_joints(std::string_view token);
  size_t first_part(std::string_view word) const;
  void encode_part(std::string_view word, WordCache& cache, std::vector<int32_t>& ids) const;
  std::vector<int32_t> symbols(std::string_view word) const;
  std::vector<int32_t> symbols_of_bytes(std::string_view word) const;
  std::vector<int32_t> symbols_of_characters(std::string_view word) const;
  void merge_short(std::vector<int32_t>& symbols) const;
  void merge_long(std::vector<int32_t>& symbols) const;

  struct PairHash {
    size_t operator()(uint64_t pair) const { return (pair ^ pair >> 29) * 0x9e3779b97f4a7c15ull; }
  };
  bool byte_level_;
  // Byte-level: the token of each byte. Else the byte fallback's token, if asked. -1: none.
  std::array<int32_t, 256> byte_ids_;
  std::unordered_map<char32_t, int32_t> character_ids_;  // unless byte-level
  // Pairs of characters, left << 32 | right, that stand side by side in a merged token.
  std::unordered_set<uint64_t, PairHash> joints_;
  int32_t unknown_ = -1;  // id of unk_token
  bool fuse_unknown_ = false;
  std::unordered_map<uint64_t, Merge, PairHash> merges_;  // key: left id << 32 | right id
  StringMap<int32_t> whole_words_;                        // filled if the model ignores merges
};

}  // namespace billm::tokenizer
