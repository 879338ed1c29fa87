// Byte-pair merging: see bpe.h. The pair of lowest rank is merged first, the leftmost of
// equals first; two ways of finding it give the same ids.
#include "bpe.h"

#include <algorithm>
#include <cstdio>
#include <queue>
#include <utility>

#include "billm/base/error.h"
#include "billm/checkpoint/json.h"
#include "unicode.h"

namespace billm::tokenizer {
namespace {

// Up to this many symbols scanning all pairs beats a heap; the scan is quadratic.
constexpr size_t kShortWord = 64;
// Longer words do not come again; the count bounds the memory of a call.
constexpr size_t kMaxCachedBytes = 64;
constexpr size_t kMaxCachedWords = 1 << 17;

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

std::string fallback_token(size_t byte) {
  char token[8];
  std::snprintf(token, sizeof(token), "<0x%02X>", static_cast<unsigned>(byte));
  return token;
}

}  // namespace

Bpe::Bpe(const BpeSpec& spec) : byte_level_(spec.byte_level), fuse_unknown_(spec.fuse_unknown) {
  const auto find = [&](const std::string& token) {
    const auto found = spec.vocab.find(token);
    return found == spec.vocab.end() ? -1 : found->second;
  };
  const auto id_of = [&](const std::string& token, const char* where) {
    const int32_t id = find(token);
    if (id < 0) {
      throw bad_input(std::string(where) + ": token \"" + printable(token) +
                      "\" is not in the vocabulary");
    }
    return id;
  };
  bool complete = true;
  for (size_t byte = 0; byte < 256; ++byte) {
    byte_ids_[byte] = spec.byte_level      ? find(byte_symbols()[byte])
                      : spec.byte_fallback ? find(fallback_token(byte))
                                           : -1;
    complete = complete && byte_ids_[byte] >= 0;
  }
  if (!complete) {
    if (spec.byte_level && spec.byte_fallback) {
      throw bad_input("model.byte_fallback: expected a byte-level vocabulary with all 256 bytes");
    }
    if (spec.unknown_token) unknown_ = id_of(*spec.unknown_token, "model.unk_token");
  }
  merges_.reserve(spec.merges.size());
  uint32_t rank = 0;
  for (const auto& [left, right] : spec.merges) {
    const std::string token = left + right;
    const int32_t merged = id_of(token, "model.merges");
    if (!spec.byte_level) add_joints(token);
    merges_[pair_key(id_of(left, "model.merges"), id_of(right, "model.merges"))] = {rank++, merged};
  }
  for (const auto& [token, id] : spec.vocab) {
    if (!spec.byte_level && !token.empty()) {
      size_t behind = 0;
      const char32_t first = next_code_point(token, behind);
      if (behind == token.size()) character_ids_.emplace(first, id);
    }
    if (!spec.ignore_merges) continue;
    if (!spec.byte_level) {
      whole_words_.emplace(token, id);
    } else if (auto bytes = symbols_to_bytes(token)) {
      whole_words_.emplace(std::move(*bytes), id);
    }
  }
}

const Bpe::Merge* Bpe::find_merge(int32_t left, int32_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void Bpe::add_joints(std::string_view token) {
  if (token.empty()) return;
  size_t position = 0;
  char32_t left = next_code_point(token, position);
  while (position < token.size()) {
    const char32_t right = next_code_point(token, position);
    joints_.insert(pair_key(static_cast<int32_t>(left), static_cast<int32_t>(right)));
    left = right;
  }
}

// End of the part of `word` that no merge leaves: it lies between two characters of the vocabulary
// that no merged token has side by side. So a text without pre-tokenizer falls into words, too.
size_t Bpe::first_part(std::string_view word) const {
  size_t position = 0;
  char32_t left = next_code_point(word, position);
  bool left_known = character_ids_.contains(left);
  while (position < word.size()) {
    const size_t end = position;
    const char32_t right = next_code_point(word, position);
    const bool right_known = character_ids_.contains(right);
    if (left_known && right_known &&
        !joints_.contains(pair_key(static_cast<int32_t>(left), static_cast<int32_t>(right)))) {
      return end;
    }
    left = right;
    left_known = right_known;
  }
  return word.size();
}

void Bpe::encode(std::string_view word, WordCache& cache, std::vector<int32_t>& ids) const {
  if (const auto whole = whole_words_.find(word); whole != whole_words_.end()) {
    ids.push_back(whole->second);
    return;
  }
  if (byte_level_) return encode_part(word, cache, ids);
  while (!word.empty()) {
    const size_t end = first_part(word);
    encode_part(word.substr(0, end), cache, ids);
    word.remove_prefix(end);
  }
}

void Bpe::encode_part(std::string_view word, WordCache& cache, std::vector<int32_t>& ids) const {
  if (const auto cached = cache.find(word); cached != cache.end()) {
    ids.insert(ids.end(), cached->second.begin(), cached->second.end());
    return;
  }
  std::vector<int32_t> merged = symbols(word);
  if (merged.size() <= kShortWord) {
    merge_short(merged);
  } else {
    merge_long(merged);
  }
  ids.insert(ids.end(), merged.begin(), merged.end());
  if (word.size() <= kMaxCachedBytes && cache.size() < kMaxCachedWords) {
    cache.emplace(word, std::move(merged));
  }
}

std::vector<int32_t> Bpe::symbols(std::string_view word) const {
  return byte_level_ ? symbols_of_bytes(word) : symbols_of_characters(word);
}

// A byte without token becomes unk_token (one for a run of them with fuse_unk), or nothing.
std::vector<int32_t> Bpe::symbols_of_bytes(std::string_view word) const {
  std::vector<int32_t> result;
  result.reserve(word.size());
  bool after_unknown = false;
  for (const char c : word) {
    const int32_t id = byte_ids_[static_cast<unsigned char>(c)];
    if (id >= 0) {
      result.push_back(id);
      after_unknown = false;
    } else if (unknown_ >= 0) {
      if (!after_unknown || !fuse_unknown_) result.push_back(unknown_);
      after_unknown = true;
    }
  }
  return result;
}

// A character without token becomes its bytes' tokens if it has them all, else as above. Like the
// library, an unknown token waits until a known character or another unknown one comes: bytes that
// come first go before it, and characters on both sides of them fuse.
std::vector<int32_t> Bpe::symbols_of_characters(std::string_view word) const {
  std::vector<int32_t> result;
  result.reserve(word.size());
  bool waiting = false;
  for (size_t position = 0; position < word.size();) {
    const size_t start = position;
    const auto known = character_ids_.find(next_code_point(word, position));
    if (known != character_ids_.end()) {
      if (waiting) result.push_back(unknown_);
      waiting = false;
      result.push_back(known->second);
      continue;
    }
    const std::string_view bytes = word.substr(start, position - start);
    const auto id_of = [&](char c) { return byte_ids_[static_cast<unsigned char>(c)]; };
    if (std::all_of(bytes.begin(), bytes.end(), [&](char c) { return id_of(c) >= 0; })) {
      for (const char c : bytes) result.push_back(id_of(c));
    } else if (unknown_ >= 0) {
      if (waiting && !fuse_unknown_) result.push_back(unknown_);
      waiting = true;
    }
  }
  if (waiting) result.push_back(unknown_);
  return result;
}

void Bpe::merge_short(std::vector<int32_t>& symbols) const {
  while (symbols.size() > 1) {
    const Merge* best = nullptr;
    size_t at = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const Merge* merge = find_merge(symbols[i], symbols[i + 1]);
      if (merge != nullptr && (best == nullptr || merge->rank < best->rank)) {
        best = merge;
        at = i;
      }
    }
    if (best == nullptr) return;
    symbols[at] = best->id;
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

void Bpe::merge_long(std::vector<int32_t>& symbols) const {
  constexpr size_t kNone = SIZE_MAX;
  struct Candidate {
    uint32_t rank;
    size_t left;
    int32_t id;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };
  // A doubly linked list through indices; a merged-away symbol holds -1.
  const size_t count = symbols.size();
  std::vector<size_t> previous(count), next(count);
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto offer = [&](size_t left, size_t right) {
    if (const Merge* merge = find_merge(symbols[left], symbols[right])) {
      queue.push({merge->rank, left, merge->id});
    }
  };
  for (size_t i = 0; i < count; ++i) {
    previous[i] = i == 0 ? kNone : i - 1;
    next[i] = i + 1 == count ? kNone : i + 1;
    if (i + 1 < count) offer(i, i + 1);
  }
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    if (symbols[top.left] < 0 || next[top.left] == kNone) continue;
    const size_t right = next[top.left];
    const Merge* merge = find_merge(symbols[top.left], symbols[right]);
    if (merge == nullptr || merge->id != top.id) continue;  // one of the two has changed since
    symbols[top.left] = top.id;
    symbols[right] = -1;
    next[top.left] = next[right];
    if (next[right] != kNone) {
      previous[next[right]] = top.left;
      offer(top.left, next[right]);
    }
    if (previous[top.left] != kNone) offer(previous[top.left], top.left);
  }
  std::erase(symbols, -1);
}

}  // namespace billm::tokenizer
