// The first levels of a row in one quantization group: its magnitudes sorted, and split where the
// error is least. A part of coder_body.h, whose rules for the order of sums hold here, too.
#pragma once

#include <math.h>

#include "kernels/cuda/coder_memory.h"

namespace billm::kernels::cuda {

struct RowCodes {
  float level[kColumnSets * kMaxLevels];
  float offset;
  float loss;
};

// The same code in all lanes of a warp; the memory holds the weights, their sets and `keep`.
template <typename Lanes>
class MagnitudeSplit {
 public:
  BILLM_HOST_DEVICE MagnitudeSplit(const Lanes& lanes, const CoderParams& params,
                                   const RowMemory& memory)
      : lanes_(lanes), p_(params), m_(memory), width_(params.width) {}

  // Levels (and the offset) of the magnitude split, weighted by R_jj^2.
  BILLM_HOST_DEVICE void first_levels(RowCodes* codes) {
    codes->offset = 0;
    if (p_.rounding.offsets) {
      double sum = 0, weights = 0;
      for (int c = 0; c < width_; ++c) {
        if (m_.keep[c] == 0) continue;
        const double r = p_.diagonal[p_.first + c];
        const double h = r * r;
        sum += h * static_cast<double>(m_.w[c]);
        weights += h;
      }
      if (weights > 0) codes->offset = static_cast<float>(sum / weights);
    }
    for (int set = 0; set < kColumnSets; ++set) {
      float* const level = codes->level + set * kMaxLevels;
      for (int k = 0; k < kMaxLevels; ++k) level[k] = 0;
      if (p_.classes[set] == 0) continue;
      const int count = sort_magnitudes(set, codes->offset);
      if (count > 0) split(count, p_.classes[set], level);
    }
  }

 private:
  // Sorts the magnitudes of a set's binary weights, and makes their prefix sums. Returns how many.
  BILLM_HOST_DEVICE int sort_magnitudes(int set, float offset) {
    float members = 0;
    for (int c = lanes_.lane(); c < m_.sort_size; c += Lanes::kLanes) {
      const bool member = c < width_ && m_.set[c] == set && m_.keep[c] != 0;
      // Non-negative floats sort as their bits do; the column makes the order of equals fixed.
      m_.keys[c] =
          member ? uint64_t{float_bits(fabsf(m_.w[c] - offset))} << 32 | static_cast<uint64_t>(c)
                 : ~uint64_t{0};
      members += member ? 1.0f : 0.0f;
    }
    const int count = static_cast<int>(lanes_.sum(members));
    lanes_.sync();
    for (int size = 2; size <= m_.sort_size; size *= 2) {  // bitonic
      for (int distance = size / 2; distance > 0; distance /= 2) {
        for (int i = lanes_.lane(); i < m_.sort_size; i += Lanes::kLanes) {
          const int other = i ^ distance;
          if (other < i) continue;
          const uint64_t one = m_.keys[i], two = m_.keys[other];
          if ((one > two) == ((i & size) == 0)) {
            m_.keys[i] = two;
            m_.keys[other] = one;
          }
        }
        lanes_.sync();
      }
    }
    if (lanes_.lane() == 0) {
      PrefixSums sums{0, 0, 0};
      m_.prefix[0] = sums;
      for (int i = 0; i < count; ++i) {
        const float r = p_.diagonal[p_.first + static_cast<int>(m_.keys[i] & 0xffffffffu)];
        const double h = r * r;
        const double w = float_of_bits(static_cast<uint32_t>(m_.keys[i] >> 32));
        sums = {sums.h + h, sums.hw + h * w, sums.hww + h * w * w};
        m_.prefix[i + 1] = sums;
      }
    }
    lanes_.sync();
    return count;
  }

  BILLM_HOST_DEVICE PrefixSums range(int begin, int end) const {
    const PrefixSums &a = m_.prefix[begin], &b = m_.prefix[end];
    return {b.h - a.h, b.hw - a.hw, b.hww - a.hww};
  }
  BILLM_HOST_DEVICE double error(int begin, int end) const {
    const PrefixSums s = range(begin, end);
    return s.h > 0 ? s.hww - s.hw * s.hw / s.h : 0.0;
  }
  BILLM_HOST_DEVICE float mean(int begin, int end, float fallback) const {
    const PrefixSums s = range(begin, end);
    return s.h > 0 ? static_cast<float>(s.hw / s.h) : fallback;
  }

  // The levels of least error, every threshold tried: by this lane, then the best of all lanes.
  BILLM_HOST_DEVICE void split(int count, int classes, float* level) {
    BestSplit best{error(0, count), count, count};
    for (int second = 1 + lanes_.lane(); second < count && classes > 1; second += Lanes::kLanes) {
      const double above = error(second, count);
      if (classes == 2) {
        const double total = error(0, second) + above;
        if (total < best.error) best = {total, second, count};
        continue;
      }
      for (int first = 1; first <= second; ++first) {
        const double total = error(0, first) + error(first, second) + above;
        if (total < best.error) best = {total, first, second};
      }
    }
    m_.splits[lanes_.lane()] = best;
    lanes_.sync();
    for (int lane = 0; lane < Lanes::kLanes; ++lane) {
      const BestSplit& other = m_.splits[lane];
      const bool earlier =
          other.second < best.second || (other.second == best.second && other.first < best.first);
      if (other.error < best.error || (other.error == best.error && earlier)) best = other;
    }
    lanes_.sync();
    level[0] = mean(0, best.first, 0.0f);
    if (classes > 1) level[1] = mean(best.first, best.second, level[0]);
    if (classes > 2) level[2] = mean(best.second, count, level[1]);
    lanes_.sync();  // before the memory is used again
  }

  const Lanes& lanes_;
  const CoderParams& p_;
  const RowMemory& m_;
  const int width_;
};

}  // namespace billm::kernels::cuda
