// Levels of one tile row: rounding to the stored grid, and their least-squares update.
#pragma once

#include "billm/codes/region_codes.h"
#include "kernels/row_levels.h"

namespace billm {

// Copies lane `lane`.
void copy_levels(const kernels::Levels& from, int lane, kernels::Levels* to);

// Rounds levels and offsets to what the file can say, so that codes are chosen against the values
// that will be decoded.
class LevelGrid {
 public:
  LevelGrid(const RegionFormat& shape, float base);
  void round(kernels::Levels* levels) const;  // also sorts the levels of each set
  float round_scale(float scale) const { return kernels::round_scale(rounding_, scale); }
  const kernels::LevelRounding& rounding() const { return rounding_; }

 private:
  kernels::LevelRounding rounding_;
};

// Solves the normal equations of kernels::level_equations for lane `lane` and writes the levels
// back. Levels of classes that no weight uses, and all levels if the system is singular, stay as
// they are.
void solve_levels(const float* gram, const float* right, int lane, bool with_offset,
                  kernels::Levels* levels);

}  // namespace billm
