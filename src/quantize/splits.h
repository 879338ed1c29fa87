// Magnitude splits of a row's weights: sort |w| once, and prefix sums give the scale and the
// weighted error of every class of every threshold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/cpu/row_tiles.h"

namespace billm {

// Fits up to kMaxLevels magnitude levels to the weights added since reset().
class MagnitudeFit {
 public:
  void reset() { keys_.clear(); }
  // |w| with weight h >= 0 (its share in the error). At most 2^31 values.
  void add(float magnitude, float h);
  // The levels, growing, that minimize sum h (|w| - level(class))^2, exactly. Returns that error.
  // Levels of empty classes repeat the one below.
  double fit(int classes, float* levels);

 private:
  double fit_two(float* levels) const;
  double fit_three(float* levels) const;
  // sum h, sum h|w| and sum h w^2 of the values [begin, end).
  struct Sums {
    double h = 0, hw = 0, hww = 0;
  };
  Sums range(size_t begin, size_t end) const {
    const Sums &a = prefix_[begin], &b = prefix_[end];
    return {b.h - a.h, b.hw - a.hw, b.hww - a.hww};
  }
  double error(size_t begin, size_t end) const {
    const Sums s = range(begin, end);
    return s.h > 0 ? s.hww - s.hw * s.hw / s.h : 0.0;
  }
  float level(size_t begin, size_t end, float fallback) const {
    const Sums s = range(begin, end);
    return s.h > 0 ? static_cast<float>(s.hw / s.h) : fallback;
  }

  std::vector<uint64_t> keys_;  // magnitude bits, then index of addition
  std::vector<float> h_;
  std::vector<float> sorted_;
  std::vector<Sums> prefix_;
};

}  // namespace billm
