// See include/billm/tokenizer/text_stream.h.
#include "billm/tokenizer/text_stream.h"

#include <string_view>

namespace billm {

TextStream::TextStream(const Tokenizer& tokenizer, std::span<const int32_t> before)
    : tokenizer_(tokenizer) {
  for (const int32_t id : before) {
    if (tokenizer_.kind(id) != TokenKind::kNoText) ids_.push_back(id);
  }
  given_ = ids_.size();
}

std::string TextStream::text(size_t end) const {
  return tokenizer_.decode(std::span(ids_).first(end), true);
}

std::string TextStream::push(int32_t id) {
  constexpr std::string_view kReplacement = "\xef\xbf\xbd";
  const TokenKind kind = tokenizer_.kind(id);
  if (kind == TokenKind::kNoText) return "";
  ids_.push_back(id);
  if (kind == TokenKind::kByte) return "";
  const std::string before = text(given_), all = text(ids_.size());
  if (all.size() <= before.size() || all.ends_with(kReplacement)) return "";
  // What comes next depends on what was given out last at most.
  ids_.erase(ids_.begin(), ids_.begin() + static_cast<std::ptrdiff_t>(given_));
  given_ = ids_.size();
  return all.substr(before.size());
}

std::string TextStream::finish() {
  const std::string before = text(given_), all = text(ids_.size());
  given_ = ids_.size();
  return all.size() <= before.size() ? "" : all.substr(before.size());
}

}  // namespace billm
