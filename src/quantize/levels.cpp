// See levels.h.
#include "levels.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace billm {

using kernels::kColumnSets;
using kernels::kMaxLevels;
using kernels::kMaxUnknowns;
using kernels::kTileRows;

void copy_levels(const kernels::Levels& from, int lane, kernels::Levels* to) {
  for (int set = 0; set < kColumnSets; ++set) {
    to->classes[set] = from.classes[set];
    for (int k = 0; k < kMaxLevels; ++k) to->level[set][k][lane] = from.level[set][k][lane];
  }
  to->offset[lane] = from.offset[lane];
}

float LevelGrid::round_scale(float scale) const {
  switch (shape_.scale_format) {
    case ScaleFormat::kLog8:
      return log8_decode(log8_encode(scale, base_), base_);
    case ScaleFormat::kF16:
      return round_to_half(scale);
    case ScaleFormat::kF32:
      break;
  }
  return scale;
}

void LevelGrid::round(kernels::Levels* levels) const {
  for (int lane = 0; lane < kTileRows; ++lane) {
    float largest = 0;
    for (int set = 0; set < kColumnSets; ++set) {
      float sorted[kMaxLevels] = {};
      const int classes = levels->classes[set];
      for (int k = 0; k < classes; ++k) {
        sorted[k] = round_scale(std::fabs(levels->level[set][k][lane]));
        largest = std::max(largest, sorted[k]);
      }
      for (int k = 1; k < classes; ++k) {  // insertion sort of at most three
        for (int i = k; i > 0 && sorted[i] < sorted[i - 1]; --i)
          std::swap(sorted[i], sorted[i - 1]);
      }
      for (int k = 0; k < classes; ++k) levels->level[set][k][lane] = sorted[k];
    }
    if (shape_.offset_kind == OffsetKind::kNone) continue;
    float& offset = levels->offset[lane];
    offset = shape_.scale_format == ScaleFormat::kLog8
                 ? offset8_decode(offset8_encode(offset, largest), largest)
                 : round_scale(offset);
  }
}

void solve_levels(const float* gram, const float* right, int lane, bool with_offset,
                  kernels::Levels* levels) {
  int unknown[kMaxUnknowns];
  int count = 0;
  for (int set = 0; set < kColumnSets; ++set) {
    for (int k = 0; k < levels->classes[set]; ++k) unknown[count++] = set * kMaxLevels + k;
  }
  if (with_offset) unknown[count++] = kMaxUnknowns - 1;
  const auto at = [&](int u, int v) {
    return double{gram[(std::min(u, v) * kMaxUnknowns + std::max(u, v)) * kTileRows + lane]};
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
        l[i][i] = std::sqrt(sum);
      } else {
        l[i][j] = sum / l[j][j];
      }
    }
  }
  for (int i = 0; i < used; ++i) {
    double sum = right[unknown[i] * kTileRows + lane];
    for (int k = 0; k < i; ++k) sum -= l[i][k] * x[k];
    x[i] = sum / l[i][i];
  }
  for (int i = used - 1; i >= 0; --i) {
    double sum = x[i];
    for (int k = i + 1; k < used; ++k) sum -= l[k][i] * x[k];
    x[i] = sum / l[i][i];
    if (!std::isfinite(x[i])) return;
  }
  for (int i = 0; i < used; ++i) {
    const auto value = static_cast<float>(x[i]);
    if (unknown[i] == kMaxUnknowns - 1) {
      levels->offset[lane] = value;
    } else {
      levels->level[unknown[i] / kMaxLevels][unknown[i] % kMaxLevels][lane] = value;
    }
  }
}

}  // namespace billm
