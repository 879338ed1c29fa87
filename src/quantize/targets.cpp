// See include/billm/quantize/targets.h.
#include "billm/quantize/targets.h"

#include <cmath>

#include "billm/base/error.h"
#include "kernels/cpu/dense.h"

namespace billm {
namespace {

// matrix [n, n] + added I, in double.
std::vector<double> ridged(const std::vector<float>& matrix, int64_t n, double added) {
  std::vector<double> result(matrix.begin(), matrix.end());
  for (int64_t i = 0; i < n; ++i) result[static_cast<size_t>(i * n + i)] += added;
  return result;
}

}  // namespace

std::vector<std::vector<float>> corrected_targets(std::span<const WeightView> weights,
                                                  const CalibrationStats& stats,
                                                  const MethodConfig& config, int threads) {
  const int64_t cols = stats.width;
  const auto square = static_cast<size_t>(cols * cols);
  int64_t rows = 0;
  for (const WeightView& weight : weights) rows += weight.rows;
  if (stats.xtx.size() != square || stats.cross.size() != square ||
      (!stats.drift.empty() && stats.stream_width() != rows)) {
    throw Error(ErrorCode::kFailure, "corrected targets: the calibration's sums have a wrong size");
  }
  double ridge = 0;
  for (int64_t i = 0; i < cols; ++i) ridge += stats.xtx[static_cast<size_t>(i * cols + i)];
  ridge *= config.target_ridge / static_cast<double>(cols);

  std::vector<double> original;  // [rows, cols]: W of all layers
  original.reserve(static_cast<size_t>(rows * cols));
  for (const WeightView& weight : weights) {
    original.insert(original.end(), weight.data, weight.data + weight.rows * cols);
  }
  std::vector<double> solved(original.size());  // [rows, cols]: the right-hand sides, solved
  kernels::multiply(kernels::Transposed::kNone, rows, cols, cols, original.data(),
                    ridged(stats.cross, cols, ridge).data(), solved.data(), threads);
  for (size_t i = 0; i < solved.size(); ++i) {
    solved[i] *= config.target_share;
    if (!stats.drift.empty()) solved[i] += config.stream_share * stats.drift[i];
  }
  std::vector<double> damped = ridged(stats.xtx, cols, ridge);
  if (!kernels::solve_rows(cols, rows, damped.data(), solved.data(), threads)) {
    throw Error(ErrorCode::kFailure,
                "corrected targets: the sums of the inputs cannot be factored with a ridge of " +
                    std::to_string(ridge),
                "raise --target-ridge, calibrate on more tokens, or give --targets own");
  }
  std::vector<std::vector<float>> targets;
  size_t at = 0;
  for (const WeightView& weight : weights) {
    std::vector<float>& target = targets.emplace_back(static_cast<size_t>(weight.rows * cols));
    for (float& value : target) {
      value = static_cast<float>((1 - config.target_share) * original[at] + solved[at]);
      ++at;
      if (!std::isfinite(value)) {
        throw Error(ErrorCode::kFailure, "corrected targets are not finite",
                    "the model overflows in fp32, or its weights are damaged");
      }
    }
  }
  return targets;
}

}  // namespace billm
