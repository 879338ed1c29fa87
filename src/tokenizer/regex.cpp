// PCRE2 behind Regex: see regex.h. The matches come in the order and with the treatment
// of empty matches of the library's engine.
#include "regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <new>

#include "billm/base/error.h"
#include "unicode.h"

namespace billm::tokenizer {
namespace {

// The compiled code grows to this only for patterns with deep backtracking.
constexpr size_t kJitStackBytes = 64 << 20;

std::string reason(int code) {
  PCRE2_UCHAR text[256] = {};
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

}  // namespace

RegexScratch::RegexScratch()
    : match_(pcre2_match_data_create(1, nullptr)),
      context_(pcre2_match_context_create(nullptr)),
      jit_stack_(pcre2_jit_stack_create(32 << 10, kJitStackBytes, nullptr)) {
  if (match_ == nullptr || context_ == nullptr) throw std::bad_alloc();
  if (jit_stack_ != nullptr) pcre2_jit_stack_assign(context_, nullptr, jit_stack_);
}

RegexScratch::~RegexScratch() {
  pcre2_jit_stack_free(jit_stack_);
  pcre2_match_context_free(context_);
  pcre2_match_data_free(match_);
}

void Regex::Free::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

Regex::Regex(const std::string& pcre2) {
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);  // whatever this PCRE2 was built with
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pcre2.data()), pcre2.size(),
                            PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                            context.get()));
  if (!code_) throw bad_input("regular expression: " + reason(error));
  pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // without a JIT the interpreter matches
}

std::vector<Span> Regex::split(std::string_view text, RegexScratch& scratch) const {
  // Enough for every pattern that walks the text a few times from each match, and an end for one
  // that backtracks exponentially.
  pcre2_set_match_limit(scratch.context_, static_cast<uint32_t>(std::min<size_t>(
                                              20'000'000 + 64 * text.size(), 4'000'000'000)));
  std::vector<Span> spans;
  size_t covered = 0, from = 0;
  size_t last_end = std::string_view::npos;
  while (from <= text.size()) {
    const int found =
        pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                    PCRE2_NO_UTF_CHECK, scratch.match_, scratch.context_);
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0) {
      throw bad_input("tokenizer: expected a regular expression that ends, it gave up at byte " +
                      std::to_string(from) + " of a text: " + reason(found));
    }
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(scratch.match_);
    const size_t begin = range[0], end = range[1];
    if (begin == end && end == last_end) {  // empty, right behind the last match: one further
      if (from < text.size()) {
        next_code_point(text, from);
      } else {
        ++from;
      }
      continue;
    }
    from = last_end = end;
    if (covered != begin) spans.push_back({covered, begin, false});
    spans.push_back({begin, end, true});
    covered = end;
  }
  if (covered != text.size()) spans.push_back({covered, text.size(), false});
  return spans;
}

}  // namespace billm::tokenizer
