// One segment of rows of a layer while it is coded on a trellis: its weights, codes, scales and
// errors. Buffers are tiles of 64 rows [columns][64]; a segment has whole ones.
#pragma once

#include <cstdint>
#include <vector>

#include "billm/codes/trellis.h"
#include "billm/quantize/hessian.h"
#include "billm/quantize/methods.h"
#include "buffer.h"
#include "kernels/cpu/row_tiles.h"
#include "trellis_groups.h"

namespace billm {

// What all segments share.
struct TrellisPlan {
  const WeightView& weight;
  const Hessian& hessian;
  TrellisFormat format;
  std::vector<GroupMetric> feedback;  // of each group: R_bb
  std::vector<GroupMetric> sweep;     // L, empty without sweeps
  std::vector<int32_t> gains;
  std::vector<float> residuals;
  TrellisCodes* out;  // each segment writes its own rows
};

class TrellisSegment {
 public:
  TrellisSegment(const TrellisPlan& plan, int64_t segment);

 protected:
  static constexpr int64_t kC = kTrellisColumns, kTileRows = kernels::kTileRows;
  static constexpr int64_t kBlock = 64;  // columns whose sums over others are added up at once

  float* tile_of(Buffer& buffer, int64_t tile) const {
    return buffer.get() + tile * cols_ * kTileRows;
  }
  // Of a row and column in tiles of `width` columns.
  static int64_t place(int64_t row, int64_t col, int64_t width) {
    return (row / kTileRows * width + col) * kTileRows + row % kTileRows;
  }
  float* scales() const { return plan_.out->scale.data() + first_row_; }
  uint8_t* states_of(size_t plane, int64_t group) const {
    return plan_.out->states[plane].data() + group * plan_.format.rows + first_row_;
  }

  std::vector<double> row_sizes() const;  // root mean squares
  // As they are stored, and what depends on them: inverses (0 of 0), weights of rows (mean 1).
  void set_scales(const std::vector<double>& sizes);

  // Values without scales: of a plane's states [rows]; of one group; the sum at [rows][4].
  void set_values(size_t plane, const uint8_t* states);
  void load_values(int64_t col);
  float sum_of_planes(size_t at) const {
    float sum = 0;
    for (const auto& values : value_) sum += values[at];  // exact: integers times 2^-19
    return sum;
  }

  // Scales a of the least |(w - a q) R|^2 for the codes as they are, and the errors; returns the
  // sum of that over the rows.
  double refit();

  // The codes of this segment, to come back to.
  struct Kept {
    std::vector<std::vector<uint8_t>> states;  // of each plane, [groups][rows]
    std::vector<double> scales;
  };
  Kept keep() const;
  void restore(const Kept& kept);

  const TrellisPlan& plan_;
  const int64_t cols_, first_row_, rows_, tiles_;
  Buffer w_, d_;                             // [tiles][cols][64]: weights, and weights minus stored
  std::vector<std::vector<float>> value_;    // of each plane, [rows][4]
  std::vector<float> inverse_, row_weight_;  // [rows]

 private:
  Buffer all_values();  // [tiles][cols][64]
  void set_errors(const Buffer& q);
};

}  // namespace billm
