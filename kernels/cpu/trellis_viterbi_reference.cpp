// Plain loops over the arithmetic of trellis_viterbi.h, and what is done once for each group.
#include <algorithm>
#include <cmath>
#include <new>
#include <vector>

#include "kernels/cpu/trellis_viterbi.h"

namespace billm::kernels {
namespace {

int16_t saturated(int value) { return static_cast<int16_t>(std::clamp(value, -32768, 32767)); }
int16_t add(int16_t a, int16_t b) { return saturated(int{a} + b); }
int16_t subtract(int16_t a, int16_t b) { return saturated(int{a} - b); }
int16_t multiply(int16_t a, int16_t b) {  // vpmulhrsw; never of two lowest numbers
  return static_cast<int16_t>((int{a} * b + (1 << 14)) >> 15);
}
int16_t nearest(float value) { return static_cast<int16_t>(std::lrint(value)); }

// A row in the metric's units.
struct Row {
  int16_t input[kTrellisColumns];
  int16_t square;
  int16_t weight;
};

Row make_row(const TrellisMetric& metric, const float* x, float weight) {
  float finite[kTrellisColumns], y[kTrellisColumns];
  for (int i = 0; i < kTrellisColumns; ++i) {
    const float value = std::clamp(x[i], -kTrellisLargest, kTrellisLargest);
    finite[i] = std::isfinite(x[i]) ? value : 0.0f;
  }
  for (int j = 0; j < kTrellisColumns; ++j) {
    float sum = finite[0] * metric.factor[0][j];
    for (int i = 1; i < kTrellisColumns; ++i) sum += finite[i] * metric.factor[i][j];
    y[j] = sum;
  }
  const float square = (y[0] * y[0] + y[1] * y[1]) + (y[2] * y[2] + y[3] * y[3]);
  const float shrink = weight / std::sqrt(std::max(square, 1.0f));
  Row row;
  for (int j = 0; j < kTrellisColumns; ++j) {
    row.input[j] = nearest((y[j] * shrink) * kTrellisInputSteps);
  }
  row.square = nearest((std::min(square, 1.0f) * weight) * kTrellisSquareSteps);
  row.weight = nearest(weight * 32767.0f);
  return row;
}

}  // namespace

TrellisMetric make_trellis_metric(const int8_t table[kTrellisStates][kTrellisColumns],
                                  float table_unit,
                                  const float factor[kTrellisColumns][kTrellisColumns]) {
  TrellisMetric metric;
  double size = 0;
  for (int i = 0; i < kTrellisColumns; ++i) {
    for (int j = 0; j < kTrellisColumns; ++j) {
      if (!std::isfinite(factor[i][j])) return metric;
      size = std::max(size, std::fabs(double{factor[i][j]}));
    }
  }
  float by_size[kTrellisColumns][kTrellisColumns];
  for (int i = 0; i < kTrellisColumns; ++i) {
    for (int j = 0; j < kTrellisColumns; ++j) {
      by_size[i][j] = size > 0 ? static_cast<float>(factor[i][j] / size) : 0.0f;
    }
  }
  // Loops over states in whole vectors: this is done for every group.
  float point[kTrellisColumns][kTrellisStates], square[kTrellisStates] = {};
  for (int j = 0; j < kTrellisColumns; ++j) {
    for (int s = 0; s < kTrellisStates; ++s) {
      float sum = by_size[0][j] * table[s][0];
      for (int i = 1; i < kTrellisColumns; ++i) sum += by_size[i][j] * table[s][i];
      point[j][s] = sum;
      square[s] += sum * sum;
    }
  }
  const double longest = std::sqrt(*std::max_element(square, square + kTrellisStates));
  if (!(longest > 0) || !(table_unit > 0)) return metric;
  const auto point_steps = static_cast<float>(32358 / longest);
  const auto square_steps = static_cast<float>(7900 / (longest * longest));
  const auto rounded = [](float value) {
    return static_cast<int16_t>(static_cast<int>(value + std::copysign(0.5f, value)));
  };
  for (int s = 0; s < kTrellisStates; ++s) metric.norm[s] = rounded(square[s] * square_steps);
  for (int j = 0; j < kTrellisColumns; ++j) {
    for (int s = 0; s < kTrellisStates; ++s) {
      metric.table[j][s] = rounded(point[j][s] * point_steps);
    }
    for (int i = 0; i < kTrellisColumns; ++i) {
      // The square of a row is to be a finite float.
      const double scaled = by_size[i][j] / (2 * longest * table_unit);
      metric.factor[i][j] = static_cast<float>(std::clamp(scaled, -1e10, 1e10));
    }
  }
  return metric;
}

float trellis_weight_scale(const float* row_weight, int64_t rows) {
  double roots = 0;
  float largest = 0;
  for (int64_t i = 0; i < rows; ++i) {
    if (!(row_weight[i] > 0) || !std::isfinite(row_weight[i])) continue;
    roots += std::sqrt(row_weight[i]);
    largest = std::max(largest, row_weight[i]);
  }
  const double root = roots / static_cast<double>(std::max<int64_t>(rows, 1));
  const auto scale = static_cast<float>(1 / std::min(double{largest}, 16 * root * root));
  return std::isfinite(scale) ? scale : 0.0f;
}

int16_t* TrellisScratch::reserve(int64_t count) {
  if (count_ < count) {
    memory_ = hwy::AllocateAligned<int16_t>(static_cast<size_t>(count));
    if (memory_ == nullptr) throw std::bad_alloc();
    count_ = count;
  }
  return memory_.get();
}

void trellis_viterbi_reference(const TrellisMetric& metric, int k, const float* x,
                               const float* row_weight, int64_t rows, uint8_t* states) {
  if (rows <= 0) return;
  const int sets = kTrellisStates >> k, bits = 1 << k;
  const float scale = row_weight == nullptr ? 1.0f : trellis_weight_scale(row_weight, rows);
  std::vector<int16_t> best(static_cast<size_t>(sets), kTrellisFloor), path(kTrellisStates);
  std::vector<uint8_t> from(static_cast<size_t>(rows * sets));
  for (int64_t i = 0; i < rows; ++i) {
    float weight = 1;
    if (row_weight != nullptr) {
      const bool counts = row_weight[i] > 0 && std::isfinite(row_weight[i]);
      weight = counts ? std::min(row_weight[i] * scale, 1.0f) : 0.0f;
    }
    const Row row = make_row(metric, x + i * kTrellisColumns, weight);
    for (int s = 0; s < kTrellisStates; ++s) {
      const int16_t norm =
          row_weight == nullptr ? metric.norm[s] : multiply(metric.norm[s], row.weight);
      int16_t product[kTrellisColumns];
      for (int j = 0; j < kTrellisColumns; ++j) {
        product[j] = multiply(row.input[j], metric.table[j][s]);
      }
      const int16_t distance =
          subtract(norm, add(add(product[0], product[1]), add(product[2], product[3])));
      path[static_cast<size_t>(s)] =
          add(add(best[static_cast<size_t>(s >> k)], row.square), distance);
    }
    int16_t least = 32767;
    for (int m = 0; m < sets; ++m) {
      int arg = 0;
      for (int h = 1; h < bits; ++h) {
        if (path[static_cast<size_t>(m + h * sets)] < path[static_cast<size_t>(m + arg * sets)]) {
          arg = h;
        }
      }
      best[static_cast<size_t>(m)] = path[static_cast<size_t>(m + arg * sets)];
      from[static_cast<size_t>(i * sets + m)] = static_cast<uint8_t>(arg);
      least = std::min(least, best[static_cast<size_t>(m)]);
    }
    const int down = std::max(least, kTrellisFloor) - kTrellisFloor;
    for (int16_t& value : best) value = static_cast<int16_t>(value - down);
  }
  auto s = static_cast<int>(std::min_element(path.begin(), path.end()) - path.begin());
  for (int64_t i = rows - 1; i >= 0; --i) {
    states[i] = static_cast<uint8_t>(s);
    if (i == 0) break;
    const int m = s >> k;
    s = m + from[static_cast<size_t>((i - 1) * sets + m)] * sets;
  }
}

}  // namespace billm::kernels
