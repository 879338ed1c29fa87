// See trellis_path.h.
#include "support/trellis_path.h"

#include <algorithm>

namespace billm {
namespace {

constexpr int kS = kTrellisStates, kC = kTrellisColumns;

// e M of a row e.
void transform(const float factor[kC][kC], const float* from, float* to) {
  for (int j = 0; j < kC; ++j) {
    float sum = from[0] * factor[0][j];
    for (int i = 1; i < kC; ++i) sum += from[i] * factor[i][j];
    to[j] = sum;
  }
}

}  // namespace

PathMetric make_path_metric(const TrellisTable& table, float unit,
                            const float factor[kTrellisColumns][kTrellisColumns]) {
  PathMetric metric;
  for (int i = 0; i < kC; ++i) std::copy_n(factor[i], kC, metric.factor[i]);
  for (int s = 0; s < kS; ++s) {
    float entry[kC], moved[kC];
    for (int j = 0; j < kC; ++j) entry[j] = static_cast<float>(table[s][j]) * unit;
    transform(metric.factor, entry, moved);
    for (int j = 0; j < kC; ++j) metric.table[j][s] = moved[j];
  }
  return metric;
}

void best_path(const PathMetric& metric, int rate, const float* x, const float* row_weight,
               int64_t rows, uint8_t* states, PathScratch* scratch) {
  const int old = kS >> rate, fresh = 1 << rate;
  alignas(64) float cost[kS], before[kS], best[kS];
  scratch->from.resize(static_cast<size_t>(rows * old));
  std::fill_n(before, kS, 0.0f);
  for (int64_t row = 0; row < rows; ++row) {
    if (row > 0) {  // state s comes from the states h * old + s / fresh, h < fresh
      uint8_t* from = scratch->from.data() + row * old;
      std::copy_n(cost, old, best);
      std::fill_n(from, old, uint8_t{0});
      for (int h = 1; h < fresh; ++h) {
        const float* next = cost + h * old;
        for (int m = 0; m < old; ++m) {
          const bool less = next[m] < best[m];
          best[m] = less ? next[m] : best[m];
          from[m] = less ? static_cast<uint8_t>(h) : from[m];
        }
      }
      for (int m = 0; m < old; ++m) std::fill_n(before + m * fresh, fresh, best[m]);
    }
    float t[kC];
    transform(metric.factor, x + row * kC, t);
    const float weight = row_weight == nullptr ? 1.0f : row_weight[row];
    for (int s = 0; s < kS; ++s) {
      const float e0 = t[0] - metric.table[0][s], e1 = t[1] - metric.table[1][s];
      const float e2 = t[2] - metric.table[2][s], e3 = t[3] - metric.table[3][s];
      cost[s] = before[s] + weight * ((e0 * e0 + e1 * e1) + (e2 * e2 + e3 * e3));
    }
  }
  int state = static_cast<int>(std::min_element(cost, cost + kS) - cost);
  for (int64_t row = rows - 1; row >= 0; --row) {
    states[row] = static_cast<uint8_t>(state);
    if (row == 0) break;
    const int m = state >> rate;
    state = scratch->from[static_cast<size_t>(row * old + m)] * old + m;
  }
}

}  // namespace billm
