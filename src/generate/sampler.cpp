// See include/billm/generate/sampler.h.
#include "billm/generate/sampler.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "billm/base/error.h"

namespace billm {
namespace {

using Candidate = Sampler::Candidate;

bool likelier(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

// `values` are sorted; sets their probabilities.
void softmax(std::vector<Candidate>& values) {
  double sum = 0;
  for (Candidate& value : values) {
    value.probability = std::exp(static_cast<double>(value.logit - values.front().logit));
    sum += value.probability;
  }
  for (Candidate& value : values) value.probability /= sum;
}

void require(bool ok, const char* name, const char* expected, double got) {
  if (ok) return;
  throw Error(ErrorCode::kUsage,
              std::string(name) + ": expected " + expected + ", got " + std::to_string(got));
}

// TopKLogitsWarper: what equals the k-th is kept, too.
void keep_top_k(std::vector<Candidate>& values, int64_t top_k) {
  if (top_k <= 0 || top_k >= static_cast<int64_t>(values.size())) return;
  const auto last = values.begin() + (top_k - 1);
  std::nth_element(values.begin(), last, values.end(), likelier);
  const float least = last->logit;
  std::erase_if(values, [&](const Candidate& value) { return value.logit < least; });
}

// TopPLogitsWarper: sums from the least likely up to 1 - top_p are dropped, in fp32 as there. One
// token is kept always. `values` are sorted and have probabilities.
void keep_top_p(std::vector<Candidate>& values, double top_p) {
  if (top_p >= 1) return;
  const auto dropped = static_cast<float>(1 - top_p);
  double sum = 0;
  size_t kept = values.size();
  while (kept > 1) {
    sum += values[kept - 1].probability;
    if (static_cast<float>(sum) > dropped) break;
    --kept;
  }
  values.resize(kept);
}

// MinPLogitsWarper. `values` are sorted and have probabilities.
void keep_min_p(std::vector<Candidate>& values, double min_p) {
  const double least = min_p * values.front().probability;
  std::erase_if(values, [&](const Candidate& value) { return value.probability < least; });
}

}  // namespace

Sampler::Sampler(const SamplerSettings& settings, int64_t vocab)
    : settings_(settings), seen_(static_cast<size_t>(vocab)), random_(settings.seed) {
  const auto finite = [](double value) { return std::isfinite(value); };
  const double penalty = settings.repetition_penalty;
  require(finite(penalty) && penalty > 0, "repetition_penalty", "a number above 0", penalty);
  require(finite(settings.temperature) && settings.temperature >= 0, "temperature",
          "a number from 0 on", settings.temperature);
  require(settings.top_k >= 0, "top_k", "a number from 0 on", static_cast<double>(settings.top_k));
  require(settings.top_p >= 0 && settings.top_p <= 1, "top_p", "a number in [0, 1]",
          settings.top_p);
  require(settings.min_p >= 0 && settings.min_p <= 1, "min_p", "a number in [0, 1]",
          settings.min_p);
}

void Sampler::start(std::span<const int32_t> sequence) {
  seen_.assign(seen_.size(), false);
  for (const int32_t id : sequence) {
    if (id < 0 || static_cast<size_t>(id) >= seen_.size()) {
      throw bad_input("token id " + std::to_string(id) + " is outside the vocabulary of " +
                          std::to_string(seen_.size()),
                      "the tokenizer is not that of the model");
    }
    seen_[static_cast<size_t>(id)] = true;
  }
}

std::vector<Candidate> Sampler::candidates(std::span<const float> logits) const {
  const auto penalty = static_cast<float>(settings_.repetition_penalty);
  const bool greedy = settings_.temperature == 0;
  const float temperature = greedy ? 1.0f : static_cast<float>(settings_.temperature);
  std::vector<Candidate> values(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    float logit = logits[i];
    if (seen_.at(i)) logit = logit < 0 ? logit * penalty : logit / penalty;
    logit /= temperature;
    if (!std::isfinite(logit)) {
      throw Error(ErrorCode::kFailure, "the logit of token " + std::to_string(i) + " is not finite",
                  "the model overflows in fp32, or the temperature is too small");
    }
    values[i] = {static_cast<int32_t>(i), logit, 0};
  }
  if (greedy) {
    values = {*std::min_element(values.begin(), values.end(), likelier)};
    values.front().probability = 1;
    return values;
  }
  keep_top_k(values, settings_.top_k);
  std::sort(values.begin(), values.end(), likelier);
  softmax(values);
  keep_top_p(values, settings_.top_p);
  keep_min_p(values, settings_.min_p);
  softmax(values);
  return values;
}

int32_t Sampler::sample(std::span<const float> logits) {
  const std::vector<Candidate> values = candidates(logits);
  int32_t chosen = values.back().token;  // if rounding leaves a rest below
  if (settings_.temperature == 0) {
    chosen = values.front().token;
  } else {
    // The upper 53 bits, not std::uniform_real_distribution: that differs between libraries.
    double left = static_cast<double>(random_() >> 11) * 0x1p-53;
    for (const Candidate& value : values) {
      left -= value.probability;
      if (left >= 0) continue;
      chosen = value.token;
      break;
    }
  }
  seen_[static_cast<size_t>(chosen)] = true;
  return chosen;
}

}  // namespace billm
