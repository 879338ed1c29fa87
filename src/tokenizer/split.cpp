// Pre-tokenization: see split.h. Steps nest (each works on one piece of the step before),
// because a pattern's anchors and look-arounds see one piece only.
#include "split.h"

#include <algorithm>

#include "normalize.h"
#include "unicode.h"

namespace billm::tokenizer {
namespace {

// Neighbours joined when `joins(span, previous_is_match)` says so.
template <typename Joins>
std::vector<Span> join(const std::vector<Span>& spans, Joins joins) {
  std::vector<Span> result;
  bool previous = false;
  for (const Span& span : spans) {
    if (joins(span.is_match, previous) && !result.empty()) {
      result.back().begin = std::min(result.back().begin, span.begin);
      result.back().end = std::max(result.back().end, span.end);
    } else {
      result.push_back({span.begin, span.end, false});
    }
    previous = span.is_match;
  }
  return result;
}

std::string with_metaspace(const Metaspace& step, std::string_view text, bool at_start) {
  std::string result = replace_all(text, {" ", step.replacement});
  const bool prepend = step.prepend == Metaspace::Prepend::kAlways ||
                       (step.prepend == Metaspace::Prepend::kFirst && at_start);
  if (prepend && !result.starts_with(step.replacement)) result.insert(0, step.replacement);
  return result;
}

struct Run {
  const std::vector<SplitStep>& steps;
  RegexScratch& scratch;
  const std::function<void(std::string_view)>& word;

  // `matched` is `text` with stand-ins: same bytes lengths, so spans of one cut the other.
  void step(size_t index, std::string_view text, std::string_view matched, bool at_start) const {
    if (text.empty()) return;
    if (index == steps.size()) return word(text);
    const SplitStep& step = steps[index];
    if (step.metaspace) {
      const std::string spaced = with_metaspace(*step.metaspace, text, at_start);
      return cut(index, spaced, with_stand_ins(spaced), at_start);
    }
    if (step.add_prefix_space && text.front() != ' ') {
      std::string text_copy(1, ' '), matched_copy(1, ' ');
      text_copy += text;
      matched_copy += matched;
      return cut(index, text_copy, matched_copy, at_start);
    }
    cut(index, text, matched, at_start);
  }

  void cut(size_t index, std::string_view text, std::string_view matched, bool at_start) const {
    const SplitStep& split = steps[index];
    if (!split.regex) return step(index + 1, text, matched, at_start);
    std::vector<Span> spans = split.regex->split(matched, scratch);
    if (split.invert) {
      for (Span& span : spans) span.is_match = !span.is_match;
    }
    for (const Span& span : apply_behavior(std::move(spans), split.behavior)) {
      const size_t size = span.end - span.begin;
      step(index + 1, text.substr(span.begin, size), matched.substr(span.begin, size),
           at_start && span.begin == 0);
    }
  }
};

}  // namespace

std::vector<Span> apply_behavior(std::vector<Span> spans, SplitBehavior behavior) {
  switch (behavior) {
    case SplitBehavior::kIsolated:
      return spans;
    case SplitBehavior::kRemoved:
      std::erase_if(spans, [](const Span& span) { return span.is_match; });
      return spans;
    case SplitBehavior::kContiguous:
      return join(spans, [](bool is_match, bool previous) { return is_match == previous; });
    case SplitBehavior::kMergedWithPrevious:
      return join(spans, [](bool is_match, bool previous) { return is_match && !previous; });
    case SplitBehavior::kMergedWithNext: {
      std::reverse(spans.begin(), spans.end());
      spans = join(spans, [](bool is_match, bool previous) { return is_match && !previous; });
      std::reverse(spans.begin(), spans.end());
      return spans;
    }
  }
  return spans;
}

void pre_tokenize(const std::vector<SplitStep>& steps, std::string_view text, bool at_start,
                  RegexScratch& scratch, const std::function<void(std::string_view)>& word) {
  const Run run{steps, scratch, word};
  run.step(0, text, with_stand_ins(text), at_start);
}

}  // namespace billm::tokenizer
