// The next token from logits, as transformers' generate() chooses it: the same processors in the
// same order with the same kept tokens and probabilities (generation/logits_process.py 5.23). The
// random numbers are billm's own.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace billm {

// The defaults change nothing. Applied in the order in which they stand here.
struct SamplerSettings {
  double repetition_penalty = 1;  // > 0: positive logits of tokens that occurred are divided by it,
                                  // negative ones multiplied
  double temperature = 0;         // logits are divided by it; 0: the largest logit, nothing below
  int64_t top_k = 0;              // so many of the largest, and what equals the last; 0: all
  double top_p = 1;               // the most likely ones that make up this share
  double min_p = 0;               // those at least this share as likely as the most likely one
  uint64_t seed = 0;
};

class Sampler {
 public:
  // Throws Error{kUsage} for a setting out of its range.
  Sampler(const SamplerSettings& settings, int64_t vocab);

  // The sequence so far, for the repetition penalty; sample() adds its tokens itself. Throws
  // Error{kBadInput} for an id outside the vocabulary.
  void start(std::span<const int32_t> sequence);

  // logits [vocab] -> a token. The same seed, logits and calls give the same tokens everywhere.
  // Throws Error{kFailure} if a logit is not finite.
  int32_t sample(std::span<const float> logits);

  struct Candidate {
    int32_t token = 0;
    float logit = 0;         // after penalty and temperature
    double probability = 0;  // of those that are kept
  };
  // What sample() draws from, the likeliest first, equal ones by id; with temperature 0 the one
  // token with the largest logit (the smallest id of equal ones).
  std::vector<Candidate> candidates(std::span<const float> logits) const;

 private:
  SamplerSettings settings_;
  std::vector<bool> seen_;  // [vocab]
  std::mt19937_64 random_;
};

}  // namespace billm
