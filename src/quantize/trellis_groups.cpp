// See trellis_groups.h. In double, rounded once.
#include "trellis_groups.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace billm {
namespace {

constexpr int kC = kTrellisColumns;
using Matrix = std::array<std::array<double, kC>, kC>;

// The inverse of an upper triangle of `count` rows.
Matrix inverse_of_upper(const Matrix& r, int count) {
  Matrix inverse{};
  for (int j = 0; j < count; ++j) {
    inverse[j][j] = 1 / r[j][j];
    for (int i = j - 1; i >= 0; --i) {
      double sum = 0;
      for (int k = i + 1; k <= j; ++k) sum += r[i][k] * inverse[k][j];
      inverse[i][j] = -sum / r[i][i];
    }
  }
  return inverse;
}

// Upper R with R R^T = h.
Matrix upper_factor(const Matrix& h, int count) {
  Matrix r{};
  for (int j = count - 1; j >= 0; --j) {
    for (int i = j; i >= 0; --i) {
      double sum = h[i][j];
      for (int k = j + 1; k < count; ++k) sum -= r[i][k] * r[j][k];
      r[i][j] = i == j ? std::sqrt(sum) : sum / r[j][j];
    }
  }
  return r;
}

GroupMetric make_metric(const Matrix& factor, const Matrix& inverse, int count) {
  double sum = 0;
  for (const auto& row : factor) {
    for (const double value : row) sum += value * value;
  }
  const double size = std::sqrt(sum / count);
  GroupMetric metric;
  for (int i = 0; i < kC; ++i) {
    for (int j = 0; j < kC; ++j) {
      metric.factor[i][j] = static_cast<float>(factor[i][j] / size);
      metric.inverse[i][j] = static_cast<float>(inverse[i][j]);
    }
  }
  return metric;
}

Matrix block_of(const std::vector<float>& matrix, int64_t cols, int64_t first, int count) {
  Matrix block{};
  for (int i = 0; i < count; ++i) {
    for (int j = 0; j < count; ++j) {
      block[i][j] = matrix[static_cast<size_t>((first + i) * cols + first + j)];
    }
  }
  return block;
}

}  // namespace

std::vector<GroupMetric> feedback_metrics(const Hessian& hessian) {
  std::vector<GroupMetric> metrics;
  for (int64_t col = 0; col < hessian.width; col += kC) {
    const int count = static_cast<int>(std::min<int64_t>(kC, hessian.width - col));
    const Matrix r = block_of(hessian.factor, hessian.width, col, count);
    metrics.push_back(make_metric(r, inverse_of_upper(r, count), count));
  }
  return metrics;
}

std::vector<GroupMetric> sweep_metrics(const Hessian& hessian) {
  std::vector<GroupMetric> metrics;
  for (int64_t col = 0; col < hessian.width; col += kC) {
    const int count = static_cast<int>(std::min<int64_t>(kC, hessian.width - col));
    Matrix h = block_of(hessian.matrix, hessian.width, col, count);
    std::array<double, kC> added{};
    for (int i = 0; i < count; ++i) {
      added[i] = hessian.lambda + (hessian.dead[static_cast<size_t>(col + i)] != 0 ? 1.0 : 0.0);
      h[i][i] += added[i];
    }
    const Matrix r = upper_factor(h, count), u = inverse_of_upper(r, count);
    Matrix inverse{};  // R^-T R^-1
    for (int i = 0; i < count; ++i) {
      for (int j = 0; j < count; ++j) {
        for (int k = 0; k < count; ++k) inverse[i][j] += u[k][i] * u[k][j];
      }
    }
    metrics.push_back(make_metric(r, inverse, count));
    for (int i = 0; i < kC; ++i) metrics.back().added[i] = static_cast<float>(added[i]);
  }
  return metrics;
}

}  // namespace billm
