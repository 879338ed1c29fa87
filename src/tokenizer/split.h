// Pre-tokenization: cutting text into the words that BPE merges within.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "regex.h"

namespace billm::tokenizer {

// What becomes of the matches of a pattern (the library's SplitDelimiterBehavior).
enum class SplitBehavior {
  kIsolated,            // a piece of its own
  kRemoved,             // dropped
  kMergedWithPrevious,  // the end of the piece before
  kMergedWithNext,      // the start of the piece behind
  kContiguous,          // neighbouring matches make one piece
};

// The pieces that remain of `spans`, in order; may hold empty ones.
std::vector<Span> apply_behavior(std::vector<Span> spans, SplitBehavior behavior);

// Spaces become `replacement`, and a piece that does not begin with one gets one in front: every
// piece, or only the one at the start of the text, or none.
struct Metaspace {
  std::string replacement;
  enum class Prepend { kAlways, kFirst, kNever } prepend;
};

// One pre-tokenizer: optionally a change of spaces, then a split.
struct SplitStep {
  bool add_prefix_space = false;  // a space before each piece that has none
  std::optional<Metaspace> metaspace;
  std::optional<Regex> regex;  // none: the piece stays whole
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // the text between the matches counts as the matches
};

// Runs all steps over `text` and calls `word` with each final, non-empty piece. `at_start`: nothing
// of the whole text lies before `text`.
void pre_tokenize(const std::vector<SplitStep>& steps, std::string_view text, bool at_start,
                  RegexScratch& scratch, const std::function<void(std::string_view)>& word);

}  // namespace billm::tokenizer
