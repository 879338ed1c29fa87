// The levels of one row and quantization group, for the CPU's tiles of 64 rows and the GPU's warps
// alike: rounding to the stored grid, and their least-squares update.
//
// A row's levels are [kColumnSets][kMaxLevels] numbers that lie `stride` apart (64 in a tile, where
// the row is a lane), its offset is one number.
#pragma once

#include <math.h>

#include "billm/base/half.h"
#include "billm/base/log8.h"
#include "kernels/cpu/row_tiles.h"

namespace billm::kernels {

// How scales are stored (billm::ScaleFormat by another name: kernels know no codes).
enum class LevelFormat { kLog8, kF16, kF32 };

struct LevelRounding {
  LevelFormat format = LevelFormat::kLog8;
  float base = 0;               // log8: the largest scale
  const float* log8 = nullptr;  // log8: kLog8Factors [256], where the caller can read it
  bool offsets = false;         // whether there is an offset
};

BILLM_HOST_DEVICE inline float round_scale(const LevelRounding& rounding, float scale) {
  if (rounding.format == LevelFormat::kLog8) {
    return rounding.base * rounding.log8[log8_nearest(scale, rounding.base, rounding.log8)];
  }
  return rounding.format == LevelFormat::kF16 ? round_to_half(scale) : scale;
}

// Rounds to what the file can say, and sorts the levels of each set.
BILLM_HOST_DEVICE inline void round_levels(const LevelRounding& rounding, const int* classes,
                                           int stride, float* level, float* offset) {
  float largest = 0;
  for (int set = 0; set < kColumnSets; ++set) {
    float sorted[kMaxLevels] = {};
    float* const first = level + set * kMaxLevels * stride;
    for (int k = 0; k < classes[set]; ++k) {
      sorted[k] = round_scale(rounding, fabsf(first[k * stride]));
      largest = largest < sorted[k] ? sorted[k] : largest;
    }
    for (int k = 1; k < classes[set]; ++k) {  // insertion sort of at most three
      for (int i = k; i > 0 && sorted[i] < sorted[i - 1]; --i) {
        const float swapped = sorted[i];
        sorted[i] = sorted[i - 1];
        sorted[i - 1] = swapped;
      }
    }
    for (int k = 0; k < classes[set]; ++k) first[k * stride] = sorted[k];
  }
  if (!rounding.offsets) return;
  *offset = rounding.format == LevelFormat::kLog8
                ? offset8_decode(offset8_encode(*offset, largest), largest)
                : round_scale(rounding, *offset);
}

// Solves the normal equations of the levels: gram [kMaxUnknowns][kMaxUnknowns] (upper part) and
// right [kMaxUnknowns], numbers `stride` apart, unknowns as in kernels::level_equations. Levels of
// classes that no weight uses, and all levels if the system is singular, stay as they are.
BILLM_HOST_DEVICE inline void solve_levels(const float* gram, const float* right, int stride,
                                           const int* classes, bool with_offset, float* level,
                                           float* offset) {
  int unknown[kMaxUnknowns];
  int count = 0;
  for (int set = 0; set < kColumnSets; ++set) {
    for (int k = 0; k < classes[set]; ++k) unknown[count++] = set * kMaxLevels + k;
  }
  if (with_offset) unknown[count++] = kMaxUnknowns - 1;
  const auto at = [&](int u, int v) {
    const int low = u < v ? u : v, high = u < v ? v : u;
    return static_cast<double>(gram[(low * kMaxUnknowns + high) * stride]);
  };
  // Classes without weights have a zero row: leave them out.
  int used = 0;
  for (int i = 0; i < count; ++i) {
    if (at(unknown[i], unknown[i]) > 0) unknown[used++] = unknown[i];
  }
  // Cholesky with a ridge far below the data.
  double l[kMaxUnknowns][kMaxUnknowns], x[kMaxUnknowns];
  for (int i = 0; i < used; ++i) {
    for (int j = 0; j <= i; ++j) {
      double sum = at(unknown[i], unknown[j]);
      if (i == j) sum *= 1 + 1e-6;
      for (int k = 0; k < j; ++k) sum -= l[i][k] * l[j][k];
      if (i == j) {
        if (!(sum > 0)) return;
        l[i][i] = sqrt(sum);
      } else {
        l[i][j] = sum / l[j][j];
      }
    }
  }
  for (int i = 0; i < used; ++i) {
    double sum = static_cast<double>(right[unknown[i] * stride]);
    for (int k = 0; k < i; ++k) sum -= l[i][k] * x[k];
    x[i] = sum / l[i][i];
  }
  for (int i = used - 1; i >= 0; --i) {
    double sum = x[i];
    for (int k = i + 1; k < used; ++k) sum -= l[k][i] * x[k];
    x[i] = sum / l[i][i];
    if (!(x[i] - x[i] == 0)) return;  // not finite
  }
  for (int i = 0; i < used; ++i) {
    const auto value = static_cast<float>(x[i]);
    if (unknown[i] == kMaxUnknowns - 1) {
      *offset = value;
    } else {
      level[unknown[i] * stride] = value;
    }
  }
}

}  // namespace billm::kernels
