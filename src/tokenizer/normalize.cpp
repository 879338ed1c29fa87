// Normalization: see normalize.h.
#include "normalize.h"

namespace billm::tokenizer {
namespace {

std::string apply_step(const NormalForm& form, std::string_view text) {
  return normalize(form, text);
}
std::string apply_step(const ReplaceText& step, std::string_view text) {
  return replace_all(text, step);
}
std::string apply_step(const PrependText& step, std::string_view text) {
  return text.empty() ? std::string() : step.text + std::string(text);
}

}  // namespace

std::string replace_all(std::string_view text, const ReplaceText& replace) {
  std::string result;
  result.reserve(text.size());
  for (;;) {
    const size_t at = text.find(replace.pattern);
    result.append(text.substr(0, at));
    if (at == std::string_view::npos) return result;
    result.append(replace.content);
    text.remove_prefix(at + replace.pattern.size());
  }
}

std::string normalize(const std::vector<NormalizeStep>& steps, std::string_view text) {
  std::string result(text);
  for (const NormalizeStep& step : steps) {
    result = std::visit([&](const auto& one) { return apply_step(one, result); }, step);
  }
  return result;
}

}  // namespace billm::tokenizer
