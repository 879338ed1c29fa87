// DBF: W ~ diag(a) S1 diag(c) S2 diag(b), S1 [n, r] and S2 [r, m] of signs (Double Binary
// Factorization, arXiv 2505.11076), found by ADMM in the metric of the whole Hessian
// (binary_factors.h).
//
// Stored: two factors of planes, A = diag(a) S1 and B = diag(c) S2 diag(b), one class each, one
// group per row: n scales of rows, then r of rows and m of columns, and r (n + m) signs.
#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "billm/base/half.h"
#include "binary_factors.h"
#include "kernels/cpu/dense.h"
#include "method_rows.h"

namespace billm {
namespace {

using Floats = std::vector<float>;
using kernels::Transposed;

constexpr int64_t kRankStep = 8;  // signs of a row fill bytes

int64_t stored_bits(int64_t rows, int64_t cols, int64_t rank) {
  return rank * (rows + cols) + 16 * (rows + cols + rank);
}

// The largest rank whose stored bits are at most `budget`, and at least kRankStep.
int64_t rank_within(int64_t rows, int64_t cols, double budget) {
  const double most =
      (budget - 16.0 * static_cast<double>(rows + cols)) / static_cast<double>(rows + cols + 16);
  return std::max(kRankStep, static_cast<int64_t>(std::floor(most + 1e-6)) / kRankStep * kRankStep);
}

// Exact in fp16 and positive.
float positive_half(float x) {
  return std::clamp(round_to_half(std::clamp(x, 0x1p-24f, 65504.0f)), 0x1p-24f, 65504.0f);
}

// The power of two nearest to the geometric mean of the positive ones of x.
int middle_exponent(const Floats& x) {
  double sum = 0;
  int64_t count = 0;
  for (const float value : x) {
    if (!(value > 0)) continue;
    sum += std::log2(static_cast<double>(value));
    ++count;
  }
  return count == 0 ? 0 : static_cast<int>(std::lround(sum / static_cast<double>(count)));
}

RegionCodes factor_codes(const BinarySide& side, Floats row_scales, Floats column_scales) {
  RegionFormat format;
  format.rows = side.rows;
  format.cols = side.cols;
  format.block_size = static_cast<int>(side.cols);
  format.classes = 1;
  format.salient_classes = 0;
  format.scale_format = ScaleFormat::kF16;
  format.column_scales = !column_scales.empty();
  RegionCodes codes = make_region_codes(format);
  std::fill(codes.region.begin(), codes.region.end(), uint8_t{1});
  for (size_t at = 0; at < side.z.size(); ++at) codes.code[at] = !std::signbit(side.z[at]);
  codes.scale = std::move(row_scales);
  codes.column_scale = std::move(column_scales);
  return codes;
}

// a of the least error with the signs and the other scales as they are stored: a_i = <h_i, C t_i> /
// <h_i, C h_i> with C = H, t_i the row of W and h_i that of S1 diag(c) S2 diag(b). Where it is
// negative, the signs of the row are turned over.
Floats refit_rows(const BinaryProblem& problem, const Floats& c, const Floats& b, BinarySide* left,
                  const BinarySide& right) {
  const int64_t rows = problem.rows, cols = problem.cols, rank = left->cols;
  Floats a(static_cast<size_t>(rows), 0.0f);
  if (problem.size == 0) return a;
  Floats outer = left->z, inner = right.z;
  for (int64_t at = 0; at < rows * rank; ++at) outer[at] = std::copysign(c[at % rank], outer[at]);
  for (int64_t at = 0; at < rank * cols; ++at) {
    inner[at] = std::copysign(b[at % cols] * problem.scale[at % cols], inner[at]);
  }
  Floats product(static_cast<size_t>(rows * cols)), in_basis(product.size());
  kernels::multiply(Transposed::kNone, rows, cols, rank, outer.data(), inner.data(), product.data(),
                    problem.threads);
  kernels::multiply(Transposed::kNone, rows, cols, cols, product.data(), problem.basis.data(),
                    in_basis.data(), problem.threads);
  for (int64_t i = 0; i < rows; ++i) {
    double with_target = 0, with_itself = 0;
    for (int64_t j = 0; j < cols; ++j) {
      const double x = in_basis[i * cols + j];
      with_target += x * problem.target[i * cols + j];
      with_itself += x * x * problem.values[j];
    }
    const double scale = with_itself > 0 ? problem.size * with_target / with_itself : 0.0;
    a[i] = round_to_half(static_cast<float>(std::min(std::fabs(scale), 65504.0)));
    if (scale >= 0) continue;
    for (int64_t k = 0; k < rank; ++k) left->z[i * rank + k] = -left->z[i * rank + k];
  }
  return a;
}

// The vectors as they are stored, in fp16: only their product is determined, so the range is shared
// out evenly (geometric means of a, b and c within a factor of 2 of each other).
void to_halves(const Floats& a, Floats* b, Floats* c) {
  const int exponent_b = middle_exponent(*b), exponent_c = middle_exponent(*c);
  const int share =
      static_cast<int>(std::lround((middle_exponent(a) + exponent_b + exponent_c) / 3.0));
  for (float& x : *b) x = positive_half(std::ldexp(x, share - exponent_b));
  for (float& x : *c) x = positive_half(std::ldexp(x, share - exponent_c));
}

}  // namespace

LayerCodes quantize_dbf(const WeightView& weight, const Hessian& hessian,
                        const MethodConfig& config, const QuantizeContext& context) {
  const int64_t rank = rank_dbf({weight.rows, weight.cols}, config.bits);
  const BinaryProblem problem(weight, hessian, context.threads);
  BinarySides sides = find_binary_factors(problem, rank);
  Floats a, b(static_cast<size_t>(weight.cols), 1.0f), c(static_cast<size_t>(rank), 1.0f);
  if (problem.size > 0) {
    for (const float u : sides.left.u) a.push_back(u * problem.size);
    for (int64_t j = 0; j < weight.cols; ++j) b[j] = sides.right.v[j] / problem.scale[j];
    for (int64_t k = 0; k < rank; ++k) c[k] = sides.left.v[k] * sides.right.u[k];
    to_halves(a, &b, &c);
  }
  a = refit_rows(problem, c, b, &sides.left, sides.right);
  LayerCodes codes;
  codes.factors.emplace_back(factor_codes(sides.left, std::move(a), {}));
  codes.factors.emplace_back(factor_codes(sides.right, std::move(c), std::move(b)));
  return codes;
}

double nominal_bits_dbf(const LayerCodes& codes) {
  const int64_t rows = codes.rows(), cols = codes.cols();
  return static_cast<double>(stored_bits(rows, cols, factor_cols(codes.factors.front()))) /
         (static_cast<double>(rows) * static_cast<double>(cols));
}

int64_t rank_dbf(const LayerSize& layer, double bits) {
  return rank_within(layer.rows, layer.cols,
                     bits * static_cast<double>(layer.rows) * static_cast<double>(layer.cols));
}

double rate_bits_dbf(const LayerSize& layer, const MethodConfig& config) {
  return static_cast<double>(stored_bits(layer.rows, layer.cols, rank_dbf(layer, config.bits))) /
         (static_cast<double>(layer.rows) * static_cast<double>(layer.cols));
}

std::vector<double> plan_dbf(std::span<const LayerSize> layers, const MethodConfig& config) {
  std::vector<double> bits;
  double left = 0;  // bits that the layers before have not used
  for (const LayerSize& layer : layers) {
    const double weights = static_cast<double>(layer.rows) * static_cast<double>(layer.cols);
    const double budget = config.bits * weights + left;
    const int64_t rank = rank_within(layer.rows, layer.cols, budget);
    const auto used = static_cast<double>(stored_bits(layer.rows, layer.cols, rank));
    bits.push_back(used / weights);
    left = budget - used;
  }
  return bits;
}

}  // namespace billm
