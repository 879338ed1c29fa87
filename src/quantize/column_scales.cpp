// See column_scales.h. With P = Q without the column scales, the scales c of least error solve
// A c = b, A = (P'P) o H' (entry by entry), b_i = sum_r p_ri (H' w_r)_i. Solved for the change of
// c, whose right side is b with D in place of W: exact zeros stay zeros.
#include "column_scales.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "billm/base/parallel.h"
#include "buffer.h"
#include "kernels/cpu/row_tiles.h"
#include "splits.h"

namespace billm {
namespace {

using kernels::kTileRows;

float storable(double scale) {
  return std::clamp(round_to_half(static_cast<float>(scale)), kSmallestColumnScale,
                    kLargestColumnScale);
}

// What is added to H_ii in H'.
double damping_of(const Hessian& hessian, int64_t i) {
  return (hessian.dead[i] != 0 ? 1.0 : 0.0) + hessian.lambda;
}

// Error of the magnitude split of W C^-1 on sampled rows, per row and group, under h_j =
// (c_j R_jj)^2.
double split_error(const WeightView& weight, const Hessian& hessian, const RegionFormat& shape,
                   const std::vector<float>& scales) {
  constexpr int64_t kSampledRows = 32;
  const int64_t step = std::max<int64_t>(1, weight.rows / kSampledRows);
  double error = 0;
  float levels[kernels::kMaxLevels];
  MagnitudeFit fit;
  for (int64_t row = 0; row < weight.rows; row += step) {
    for (int64_t first = 0; first < weight.cols; first += shape.block_size) {
      const int64_t end = std::min<int64_t>(weight.cols, first + shape.block_size);
      fit.reset();
      for (int64_t col = first; col < end; ++col) {
        const float r = hessian.diagonal[col] * scales[col];
        fit.add(std::fabs(weight.data[row * weight.cols + col]) / scales[col], r * r);
      }
      error += fit.fit(shape.classes, levels);
    }
  }
  return error;
}

// tr(D H' D'), and right_i = sum_r p_ri (D H')_ri. Sums over the 64 rows of a tile, then over the
// tiles in order, whatever the threads.
double error_and_right(const WeightView& weight, const Hessian& hessian,
                       const std::vector<float>& p, const std::vector<float>& scales, int threads,
                       std::vector<double>* right) {
  const int64_t cols = weight.cols;
  const int64_t tiles = (weight.rows + kTileRows - 1) / kTileRows;
  std::vector<double> errors(static_cast<size_t>(tiles), 0.0);
  std::vector<double> rights(static_cast<size_t>(tiles * cols), 0.0);
  parallel_for(tiles, threads, [&](int64_t tile) {
    const int64_t first = tile * kTileRows;
    const int64_t rows = std::min<int64_t>(kTileRows, weight.rows - first);
    Buffer d(cols * kTileRows), image(cols * kTileRows);  // D and D H, [cols][64]
    for (int64_t col = 0; col < cols; ++col) {
      for (int64_t lane = 0; lane < rows; ++lane) {
        const int64_t at = (first + lane) * cols + col;
        d.get()[col * kTileRows + lane] = weight.data[at] - p[at] * scales[col];
      }
    }
    kernels::accumulate_feedback(d.get(), cols, hessian.matrix.data(), cols, cols, image.get());
    for (int64_t col = 0; col < cols; ++col) {
      const double damping = damping_of(hessian, col);
      double error = 0, sum = 0;
      for (int64_t lane = 0; lane < rows; ++lane) {
        const double delta = d.get()[col * kTileRows + lane];
        const double value = image.get()[col * kTileRows + lane] + damping * delta;
        error += delta * value;
        sum += p[(first + lane) * cols + col] * value;
      }
      errors[tile] += error;
      rights[tile * cols + col] = sum;
    }
  });
  right->assign(static_cast<size_t>(cols), 0.0);
  double error = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    error += errors[tile];
    for (int64_t col = 0; col < cols; ++col) (*right)[col] += rights[tile * cols + col];
  }
  return error;
}

// (P'P) o H', [cols][cols].
std::vector<double> column_equations(const WeightView& weight, const Hessian& hessian,
                                     const std::vector<float>& p, int threads) {
  const int64_t cols = weight.cols;
  std::vector<double> a(static_cast<size_t>(cols * cols));
  const int64_t tiles = (cols + kTileRows - 1) / kTileRows;
  parallel_for(tiles, threads, [&](int64_t tile) {  // the lanes are 64 columns here
    const int64_t first = tile * kTileRows;
    const int64_t width = std::min<int64_t>(kTileRows, cols - first);
    Buffer left(weight.rows * kTileRows), product((cols - first) * kTileRows);
    for (int64_t row = 0; row < weight.rows; ++row) {
      std::copy_n(p.data() + row * cols + first, width, left.get() + row * kTileRows);
    }
    kernels::accumulate_feedback(left.get(), weight.rows, p.data() + first, cols, cols - first,
                                 product.get());
    for (int64_t i = first; i < first + width; ++i) {
      for (int64_t j = i; j < cols; ++j) {
        const double h = hessian.matrix[i * cols + j] + (i == j ? damping_of(hessian, i) : 0.0);
        const double value = h * product.get()[(j - first) * kTileRows + i - first];
        a[i * cols + j] = value;
        a[j * cols + i] = value;
      }
    }
  });
  return a;
}

// Minimizes x'Ax - 2 x'residual over low <= x <= high by coordinate descent from 0 (Gauss-Seidel:
// it minds the bounds, never rises, and A is close to diagonal because signs of different columns
// hardly correlate). `residual` becomes the right side less A x.
std::vector<double> solve_bounded(const std::vector<double>& a, const std::vector<double>& low,
                                  const std::vector<double>& high, std::vector<double>* residual) {
  constexpr int kSweeps = 30;
  constexpr double kSmallStep = 1e-5;  // far below fp16's precision
  const int64_t n = static_cast<int64_t>(residual->size());
  std::vector<double> x(residual->size(), 0.0);
  double* r = residual->data();
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    double largest = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double* row = a.data() + i * n;
      if (!(row[i] > 0)) continue;  // a column of zeros
      const double step = std::clamp(x[i] + r[i] / row[i], low[i], high[i]) - x[i];
      if (!std::isfinite(step) || step == 0) continue;
      x[i] += step;
      for (int64_t j = 0; j < n; ++j) r[j] -= step * row[j];
      largest = std::max(largest, std::fabs(step));
    }
    if (largest < kSmallStep) break;
  }
  return x;
}

}  // namespace

std::vector<float> first_column_scales(const WeightView& weight, const Hessian& hessian,
                                       const RegionFormat& shape, int threads) {
  std::vector<double> size(static_cast<size_t>(weight.cols), 0.0);
  for (int64_t row = 0; row < weight.rows; ++row) {
    for (int64_t col = 0; col < weight.cols; ++col) {
      size[col] += std::fabs(weight.data[row * weight.cols + col]);
    }
  }
  // A typical column: the median of those that are not zero. Only IEEE operations from here on
  // (no log or pow), so that every machine starts from the same scales.
  std::vector<double> used = size;
  std::erase_if(used, [](double s) { return !(s > 0); });
  double typical = 1.0;
  if (!used.empty()) {
    const auto middle = used.begin() + static_cast<int64_t>(used.size() / 2);
    std::nth_element(used.begin(), middle, used.end());
    typical = *middle;
  }
  constexpr int kPowers = 3;  // 0, 1/2, 1
  std::array<std::vector<float>, kPowers> scales;
  std::array<double, kPowers> error;
  parallel_for(kPowers, threads, [&](int64_t i) {
    scales[i].assign(size.size(), 1.0f);
    for (size_t col = 0; i > 0 && col < size.size(); ++col) {
      const double ratio = size[col] / typical;
      if (size[col] > 0) scales[i][col] = storable(i == 1 ? std::sqrt(ratio) : ratio);
    }
    error[i] = split_error(weight, hessian, shape, scales[i]);
  });
  return scales[std::min_element(error.begin(), error.end()) - error.begin()];
}

double refit_columns(const WeightView& weight, const Hessian& hessian, int threads,
                     RegionCodes* linear) {
  const std::vector<float> scales = linear->column_scale;
  const size_t n = scales.size();
  linear->column_scale.assign(n, 1.0f);
  const std::vector<float> p = dequantize(*linear);
  linear->column_scale = scales;
  std::vector<double> right, low(n), high(n);
  const double before = error_and_right(weight, hessian, p, scales, threads, &right);
  const std::vector<double> a = column_equations(weight, hessian, p, threads);
  for (size_t i = 0; i < n; ++i) {
    low[i] = double{kSmallestColumnScale} - scales[i];
    high[i] = double{kLargestColumnScale} - scales[i];
  }
  std::vector<double> residual = right;
  const std::vector<double> change = solve_bounded(a, low, high, &residual);
  std::vector<float> next = scales;
  for (size_t i = 0; i < n; ++i) next[i] = storable(scales[i] + change[i]);
  // The error with the rounded scales: that of `change` less what rounding moves.
  double after = before;
  for (size_t i = 0; i < n; ++i) {
    double sum = 0;
    const double* row = a.data() + i * n;
    for (size_t j = 0; j < n; ++j) sum += row[j] * (double{next[j]} - scales[j]);
    after += (double{next[i]} - scales[i]) * (sum - 2 * right[i]);
  }
  if (!(after < before)) return before;
  linear->column_scale = next;
  return after;
}

}  // namespace billm
