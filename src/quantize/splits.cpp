// See splits.h. BiLLM section 3.3 (bell-shaped splitting) and STBLLM's p, 2p, with the error of the
// weights as the objective.
#include "splits.h"

#include <algorithm>
#include <bit>

namespace billm {

void MagnitudeFit::add(float magnitude, float h) {
  // Non-negative floats sort as their bits do; the index makes the order of equals fixed.
  if (keys_.empty()) h_.clear();
  keys_.push_back(uint64_t{std::bit_cast<uint32_t>(magnitude)} << 32 | keys_.size());
  h_.push_back(h);
}

double MagnitudeFit::fit(int classes, float* levels) {
  if (!std::is_sorted(keys_.begin(), keys_.end())) std::sort(keys_.begin(), keys_.end());
  sorted_.resize(keys_.size());
  prefix_.resize(keys_.size() + 1);
  prefix_[0] = {};
  for (size_t i = 0; i < keys_.size(); ++i) {
    const float magnitude = std::bit_cast<float>(static_cast<uint32_t>(keys_[i] >> 32));
    const double h = h_[keys_[i] & 0xffffffffu];
    const double w = magnitude;
    sorted_[i] = magnitude;
    prefix_[i + 1] = {prefix_[i].h + h, prefix_[i].hw + h * w, prefix_[i].hww + h * w * w};
  }
  if (keys_.empty()) {
    std::fill(levels, levels + classes, 0.0f);
    return 0;
  }
  if (classes == 1) {
    levels[0] = level(0, keys_.size(), 0.0f);
    return error(0, keys_.size());
  }
  return classes == 2 ? fit_two(levels) : fit_three(levels);
}

double MagnitudeFit::fit_two(float* levels) const {
  const size_t count = keys_.size();
  size_t best = count;
  double least = error(0, count);
  for (size_t i = 1; i < count; ++i) {
    const double e = error(0, i) + error(i, count);
    if (e < least) {
      least = e;
      best = i;
    }
  }
  levels[0] = level(0, best, 0.0f);
  levels[1] = level(best, count, levels[0]);
  return least;
}

double MagnitudeFit::fit_three(float* levels) const {
  const size_t count = keys_.size();
  size_t first = count, second = count;
  double least = error(0, count);
  for (size_t i = 1; i < count; ++i) {
    const size_t j = std::max(i, first_above(2 * sorted_[i]));
    const double e = error(0, i) + error(i, j) + error(j, count);
    if (e < least) {
      least = e;
      first = i;
      second = j;
    }
  }
  // Alternate levels and thresholds (they lie half way between levels) until nothing moves.
  for (int round = 0; round < 20; ++round) {
    levels[0] = level(0, first, 0.0f);
    levels[1] = level(first, second, levels[0]);
    levels[2] = level(second, count, levels[1]);
    const size_t i = first_above(0.5f * (levels[0] + levels[1]));
    const size_t j = std::max(i, first_above(0.5f * (levels[1] + levels[2])));
    const double e = error(0, i) + error(i, j) + error(j, count);
    if (!(e < least)) break;
    least = e;
    first = i;
    second = j;
  }
  return least;
}

size_t MagnitudeFit::first_above(float threshold) const {
  return static_cast<size_t>(std::upper_bound(sorted_.begin(), sorted_.end(), threshold) -
                             sorted_.begin());
}

}  // namespace billm
