// Added tokens: see added.h. The order of the checks in find() is the library's.
#include "added.h"

#include <algorithm>
#include <limits>

#include "billm/base/error.h"
#include "billm/checkpoint/json.h"
#include "unicode.h"

namespace billm::tokenizer {
namespace {

// \w of Rust's regex crate, by the matcher that knows the right Unicode version.
bool is_word(std::string_view character) {
  static const Regex word("[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]");
  RegexScratch scratch;
  const auto spans = word.split(with_stand_ins(character), scratch);
  return !spans.empty() && spans.front().is_match;
}

size_t start_of_last(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) --at;
  return at;
}

bool ends_with_word(std::string_view text) {
  return !text.empty() && is_word(text.substr(start_of_last(text)));
}

bool starts_with_word(std::string_view text) {
  if (text.empty()) return false;
  size_t end = 0;
  next_code_point(text, end);
  return is_word(text.substr(0, end));
}

size_t without_trailing_space(std::string_view text) {
  while (!text.empty()) {
    const size_t last = start_of_last(text);
    size_t position = last;
    if (!is_white_space(next_code_point(text, position))) break;
    text = text.substr(0, last);
  }
  return text.size();
}

size_t leading_space(std::string_view text) {
  size_t position = 0;
  while (position < text.size()) {
    size_t behind = position;
    if (!is_white_space(next_code_point(text, behind))) break;
    position = behind;
  }
  return position;
}

}  // namespace

AddedTokens::AddedTokens(const TokenizerSpec& spec) {
  int64_t next_id = static_cast<int64_t>(spec.bpe.vocab.size());
  for (const AddedToken& token : spec.added) {
    if (token.content.empty()) continue;
    int32_t id;
    if (const auto known = ids_.find(token.content); known != ids_.end()) {
      id = known->second;
    } else if (const auto model = spec.bpe.vocab.find(token.content);
               model != spec.bpe.vocab.end()) {
      id = model->second;
    } else {
      if (next_id > std::numeric_limits<int32_t>::max()) throw bad_input("too many added tokens");
      id = static_cast<int32_t>(next_id++);
      ++count_new_;
    }
    ids_[token.content] = id;
    if (token.special) special_.insert(token.content);
    std::string pattern = token.content;
    if (token.normalized) pattern = normalize(spec.normalizers, pattern);
    by_id_[id] = {token, std::move(pattern)};
  }
  for (const auto& [id, entry] : by_id_) {
    if (!(entry.token.normalized ? normalized_ : raw_).add(entry.pattern, id)) {
      throw bad_input("added_tokens: expected different texts after normalization, got \"" +
                      printable(entry.pattern) + "\" twice");
    }
  }
}

std::optional<int32_t> AddedTokens::id_of(const std::string& content) const {
  const auto found = ids_.find(content);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

bool AddedTokens::Trie::add(std::string_view pattern, int32_t id) {
  uint32_t node = 0;
  for (const char c : pattern) {
    const uint64_t edge = static_cast<uint64_t>(node) << 8 | static_cast<unsigned char>(c);
    const auto [found, added] = children.try_emplace(edge, static_cast<uint32_t>(ids.size()));
    if (added) ids.push_back(-1);
    node = found->second;
  }
  if (ids[node] >= 0) return false;
  ids[node] = id;
  return true;
}

int32_t AddedTokens::Trie::longest(std::string_view text, size_t position, size_t& end) const {
  int32_t id = -1;
  uint32_t node = 0;
  while (position < text.size()) {
    const auto found = children.find(static_cast<uint64_t>(node) << 8 |
                                     static_cast<unsigned char>(text[position++]));
    if (found == children.end()) break;
    node = found->second;
    if (ids[node] >= 0) {
      id = ids[node];
      end = position;
    }
  }
  return id;
}

std::vector<AddedTokens::Piece> AddedTokens::find(std::string_view text, bool normalized) const {
  const Trie& trie = normalized ? normalized_ : raw_;
  std::vector<Piece> pieces;
  size_t covered = 0;
  size_t position = 0;
  while (!trie.children.empty() && position < text.size()) {
    size_t end = 0;
    const int32_t id = trie.longest(text, position, end);
    if (id < 0) {
      ++position;
      continue;
    }
    size_t begin = position;
    position = end;
    const AddedToken& token = by_id_.at(id).token;
    if (token.single_word &&
        (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end)))) {
      continue;
    }
    if (token.lstrip) begin = std::max(without_trailing_space(text.substr(0, begin)), covered);
    if (token.rstrip) end += leading_space(text.substr(end));
    if (covered < begin) pieces.push_back({-1, covered, begin});
    pieces.push_back({id, begin, end});
    covered = end;
  }
  if (covered < text.size()) pieces.push_back({-1, covered, text.size()});
  return pieces;
}

}  // namespace billm::tokenizer
