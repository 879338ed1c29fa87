// See stop_texts.h.
#include "stop_texts.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "billm/base/error.h"
#include "billm/base/utf8.h"

namespace billm {

StopTexts::StopTexts(std::vector<std::string> texts) : texts_(std::move(texts)) {
  for (const std::string& text : texts_) {
    if (text.empty() || find_invalid_utf8(text) != std::string::npos) {
      throw Error(ErrorCode::kUsage, "--stop: expected a text in UTF-8, got " +
                                         std::string(text.empty() ? "nothing" : "other bytes"));
    }
  }
}

std::string StopTexts::push(const std::string& piece) {
  if (found_) return "";
  held_ += piece;
  size_t first = std::string::npos;
  for (const std::string& text : texts_) first = std::min(first, held_.find(text));
  if (first != std::string::npos) {
    found_ = true;
    return held_.substr(0, first);
  }
  size_t keep = 0;  // the longest end of held_ that begins a stop text
  for (const std::string& text : texts_) {
    for (size_t n = std::min(text.size() - 1, held_.size()); n > keep; --n) {
      if (held_.ends_with(std::string_view(text).substr(0, n))) keep = n;
    }
  }
  const std::string certain = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return certain;
}

std::string StopTexts::finish() { return found_ ? "" : std::exchange(held_, ""); }

}  // namespace billm
