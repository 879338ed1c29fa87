// See levels.h.
#include "levels.h"

namespace billm {

using kernels::kColumnSets;
using kernels::kMaxLevels;
using kernels::kTileRows;

void copy_levels(const kernels::Levels& from, int lane, kernels::Levels* to) {
  for (int set = 0; set < kColumnSets; ++set) {
    to->classes[set] = from.classes[set];
    for (int k = 0; k < kMaxLevels; ++k) to->level[set][k][lane] = from.level[set][k][lane];
  }
  to->offset[lane] = from.offset[lane];
}

namespace {

kernels::LevelFormat format_of(ScaleFormat format) {
  switch (format) {
    case ScaleFormat::kLog8:
      return kernels::LevelFormat::kLog8;
    case ScaleFormat::kF16:
      return kernels::LevelFormat::kF16;
    case ScaleFormat::kF32:
      break;
  }
  return kernels::LevelFormat::kF32;
}

}  // namespace

LevelGrid::LevelGrid(const RegionFormat& shape, float base)
    : rounding_{format_of(shape.scale_format), base, kLog8Factors.data(),
                shape.offset_kind != OffsetKind::kNone} {}

void LevelGrid::round(kernels::Levels* levels) const {
  for (int lane = 0; lane < kTileRows; ++lane) {
    kernels::round_levels(rounding_, levels->classes, kTileRows, &levels->level[0][0][lane],
                          &levels->offset[lane]);
  }
}

void solve_levels(const float* gram, const float* right, int lane, bool with_offset,
                  kernels::Levels* levels) {
  kernels::solve_levels(gram + lane, right + lane, kTileRows, levels->classes, with_offset,
                        &levels->level[0][0][lane], &levels->offset[lane]);
}

}  // namespace billm
