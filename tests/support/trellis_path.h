// The best path of one segment of a column group through the trellis of one plane (Viterbi): a
// reference, in fp32 with plain loops, the same on every machine.
#pragma once

#include <cstdint>
#include <vector>

#include "billm/codes/trellis.h"

namespace billm {

// What a path is measured in: sum over rows of weight_r |(x_r - T[s_r] unit) M|^2.
struct PathMetric {
  alignas(64) float table[kTrellisColumns][kTrellisStates];  // T[s] unit M, by column
  float factor[kTrellisColumns][kTrellisColumns];            // M: row of e times M
};
// factor: M [4][4], e' = e M with e a row.
PathMetric make_path_metric(const TrellisTable& table, float unit,
                            const float factor[kTrellisColumns][kTrellisColumns]);

struct PathScratch {
  std::vector<uint8_t> from;
};

// The states [rows] of the best path. x [rows][4], row_weight [rows] or null: all 1.
void best_path(const PathMetric& metric, int rate, const float* x, const float* row_weight,
               int64_t rows, uint8_t* states, PathScratch* scratch);

}  // namespace billm
