// Where the learning of region codes starts: a latent value behind every code. Torch-free.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "billm/codes/region_codes.h"

namespace billm {

struct RegionStart {
  // All in units of `unit`, the mean scale of a row and group (1 where that is 0).
  std::vector<float> latent;     // [rows, cols]: sign and magnitude say the code
  std::vector<float> threshold;  // [R, rows, groups]: between a class and the next of its set
  std::vector<float> unit;       // [rows, groups]
};

// `weight` [rows, cols]: the original. A latent starts at the original weight, moved inside the
// cell of its code by up to 2 * margin units where it lies outside or at the border; at random
// depths, since Adam's first steps have the same length everywhere (decision 0007). Throws
// Error{kBadInput} unless levels are positive and grow within each column set. The same at any
// thread count.
RegionStart start_latents(const RegionCodes& codes, const float* weight, double margin,
                          int threads);

// Codes that stay: +-(class + 1) of every weight, [rows, cols]; +-1 where there is no class.
std::vector<int8_t> signed_classes(const RegionCodes& codes, int threads);

// The codes whose signed classes are `levels` [rows, cols] and whose scales are `scale` [R, rows,
// groups] and `column_scale` [cols] (empty: none); what is not learned is that of `start`.
RegionCodes codes_of_levels(const RegionCodes& start, const int8_t* levels, const float* scale,
                            const std::vector<float>& column_scale, int threads);

// Logarithms of starting scales, relative to those of the codes, [R, rows, groups]: anywhere in the
// grid's cell for log8, for the same reason; else 0.
std::vector<float> scale_dither(const RegionCodes& codes);

// [groups, R, rows], as RegionCodes has its scales, as [R, rows, groups].
std::vector<float> scales_by_region(const RegionCodes& codes);

// Why such a layer cannot be learned, with what to do about it; empty if it can.
struct Refusal {
  std::string what, hint;
  bool refused() const { return !what.empty(); }
};
Refusal cannot_learn(const RegionFormat& format);

}  // namespace billm
