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
  std::vector<double> points(kTrellisStates * kTrellisColumns, 0.0), square(kTrellisStates, 0.0);
  for (size_t s = 0; s < kTrellisStates; ++s) {
    for (size_t j = 0; j < kTrellisColumns; ++j) {
      double sum = 0;
      for (size_t i = 0; i < kTrellisColumns; ++i) sum += double{factor[i][j]} * table[s][i];
      sum *= table_unit;
      points[s * kTrellisColumns + j] = sum;
      square[s] += sum * sum;
    }
  }
  double largest = 0;
  for (const double value : square) largest = std::isnan(value) ? value : std::max(largest, value);
  const double inverse = 1 / std::sqrt(largest);
  double steepest = 0;
  for (int i = 0; i < kTrellisColumns; ++i) {
    for (int j = 0; j < kTrellisColumns; ++j) {
      steepest = std::max(steepest, std::fabs(factor[i][j] * inverse));
    }
  }
  TrellisMetric metric;
  // With more than 1e10 the square of a row is no finite float.
  if (!(largest > 0) || !std::isfinite(largest) || !(steepest <= 1e10)) return metric;
  for (size_t s = 0; s < kTrellisStates; ++s) {
    for (size_t j = 0; j < kTrellisColumns; ++j) {
      const double point = points[s * kTrellisColumns + j] * inverse;
      metric.table[j][s] = static_cast<int16_t>(std::lrint(point * 32358));
    }
    metric.norm[s] = static_cast<int16_t>(std::lrint(square[s] / largest * 7900));
  }
  for (int i = 0; i < kTrellisColumns; ++i) {
    for (int j = 0; j < kTrellisColumns; ++j) {
      metric.factor[i][j] = static_cast<float>(factor[i][j] * inverse / 2);
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
