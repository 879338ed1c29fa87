// One sequence that grows: prompts and answers, with what the generator has computed kept between
// them.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "billm/generate/generator.h"
#include "billm/generate/sampler.h"
#include "billm/tokenizer/tokenizer.h"

namespace billm {

struct AnswerLimits {
  int64_t tokens = -1;             // at most; negative: as many as the context has room for
  std::vector<int64_t> end_ids;    // tokens that end an answer
  std::vector<std::string> stops;  // texts that do
};

struct Answer {
  std::vector<int32_t> ids;  // with the token that ended it
  std::string text;          // of them, without special tokens and from a stop text on
  const char* finish =
      "";  // "eos", "stop", "length", "context" (which is full), "closed" (the reader)
  int64_t prefill_tokens = 0, decode_tokens = 0;  // that passed the blocks; others were there
  double prefill_seconds = 0, decode_seconds = 0;
};

class Session {
 public:
  // Keeps the references.
  Session(Generator& generator, Sampler& sampler, const Tokenizer& tokenizer)
      : generator_(generator), sampler_(sampler), tokenizer_(tokenizer) {}

  // Continues `sequence` (at least one token), of which what equals the sequence before is not
  // computed again. on_text gets the text piece by piece; false ends the answer. With
  // `continues_text` the text is a continuation of the sequence's, else a text of its own.
  Answer answer(const std::vector<int32_t>& sequence, bool continues_text,
                const AnswerLimits& limits, const std::function<bool(const std::string&)>& on_text);

 private:
  std::span<const float> append(std::span<const int32_t> tokens);

  Generator& generator_;
  Sampler& sampler_;
  const Tokenizer& tokenizer_;
  std::vector<int32_t> computed_;  // the generator's sequence
};

}  // namespace billm
