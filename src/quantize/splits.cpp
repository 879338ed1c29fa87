// See splits.h. BiLLM section 3.3 (bell-shaped splitting) and STBLLM's three regions, with the
// error of the weights as the objective and every threshold tried, not only p and 2p.
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

// The best first threshold never falls when the second one rises (sums of squares about a mean are
// a Monge array), so the middle second threshold halves the search for all others: n log n.
double MagnitudeFit::fit_three(float* levels) const {
  const size_t count = keys_.size();
  size_t first = count, second = count;
  double least = error(0, count);
  const auto search = [&](const auto& self, size_t begin, size_t end, size_t lowest,
                          size_t highest) -> void {  // second in [begin, end)
    if (begin == end) return;
    const size_t middle = begin + (end - begin) / 2;
    size_t best = lowest;
    double below = error(0, lowest) + error(lowest, middle);
    for (size_t i = lowest + 1; i <= std::min(highest, middle); ++i) {
      const double e = error(0, i) + error(i, middle);
      if (e < below) {
        below = e;
        best = i;
      }
    }
    const double total = below + error(middle, count);
    if (total < least) {
      least = total;
      first = best;
      second = middle;
    }
    self(self, begin, middle, lowest, best);
    self(self, middle + 1, end, best, highest);
  };
  search(search, 1, count, 1, count);
  levels[0] = level(0, first, 0.0f);
  levels[1] = level(first, second, levels[0]);
  levels[2] = level(second, count, levels[1]);
  return least;
}

}  // namespace billm
