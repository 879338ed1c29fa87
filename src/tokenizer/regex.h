// Regular expressions of tokenizer.json (Oniguruma's syntax, which the library uses) run by PCRE2.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

// PCRE2's own names, so that its header stays in one file.
struct pcre2_real_code_8;
struct pcre2_real_match_data_8;
struct pcre2_real_match_context_8;
struct pcre2_real_jit_stack_8;

namespace billm::tokenizer {

// The same language in PCRE2's syntax. Covers what byte-level tokenizers use; a construct that the
// two engines read differently and that has no translation is Error{kBadInput} naming it.
std::string pcre2_from_oniguruma(std::string_view pattern);
// A pattern for `text` itself.
std::string pcre2_from_literal(std::string_view text);

// A piece of a text: [begin, end) in bytes, and whether the pattern matched it.
struct Span {
  size_t begin, end;
  bool is_match;
};

// What one thread needs to match: PCRE2's buffers. Serves any number of Regex objects.
class RegexScratch {
 public:
  RegexScratch();
  ~RegexScratch();
  RegexScratch(const RegexScratch&) = delete;
  RegexScratch& operator=(const RegexScratch&) = delete;

 private:
  friend class Regex;
  pcre2_real_match_data_8* match_;
  pcre2_real_match_context_8* context_;
  pcre2_real_jit_stack_8* jit_stack_;
};

class Regex {
 public:
  // `pcre2`: a pattern made by one of the functions above. Throws Error{kBadInput}.
  explicit Regex(const std::string& pcre2);
  // Successive matches and the text between them, covering `text` (well-formed UTF-8, stand-ins in
  // place) in order; an empty match is a span of its own, but not right behind another match.
  // Throws Error{kBadInput} if the pattern backtracks without end.
  std::vector<Span> split(std::string_view text, RegexScratch& scratch) const;

 private:
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
  };
  std::unique_ptr<pcre2_real_code_8, Free> code_;
};

}  // namespace billm::tokenizer
