// Hessian and factor: see include/billm/quantize/hessian.h.
#include "billm/quantize/hessian.h"

#include <cmath>

#include "billm/base/error.h"
#include "billm/base/parallel.h"
#include "kernels/cpu/cholesky.h"

namespace billm {
namespace {

int64_t stride_of(int64_t n) { return (n + 7) / 8 * 8; }

// Factors the damped matrix, element (i, j) at (index(i), index(j)), into `work` [n, stride].
template <typename Index>
bool factor_damped(const Hessian& hessian, Index index, int threads, std::vector<double>* work) {
  const int64_t n = hessian.width, stride = stride_of(n);
  work->resize(static_cast<size_t>(n * stride));
  parallel_for(n, threads, [&](int64_t i) {
    const float* row = hessian.matrix.data() + index(i) * n;
    for (int64_t j = 0; j < n; ++j) (*work)[i * stride + j] = row[index(j)];
    (*work)[i * stride + i] += (hessian.dead[index(i)] ? 1.0 : 0.0) + hessian.lambda;
  });
  return kernels::factor_upper(work->data(), n, stride, threads);
}

std::vector<float> to_floats(const std::vector<double>& work, int64_t n) {
  std::vector<float> factor(static_cast<size_t>(n * n));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      factor[i * n + j] = static_cast<float>(work[i * stride_of(n) + j]);
    }
  }
  return factor;
}

}  // namespace

Hessian make_hessian(const CalibrationStats& stats, bool with_factor, double damping, int threads) {
  const int64_t n = stats.width;
  if (stats.tokens < 1 || static_cast<int64_t>(stats.xtx.size()) != n * n) {
    throw Error(ErrorCode::kFailure, "calibration statistics are empty or have a wrong size");
  }
  Hessian hessian;
  hessian.width = n;
  hessian.matrix.resize(stats.xtx.size());
  hessian.dead.assign(static_cast<size_t>(n), 0);
  const float factor = 2.0f / static_cast<float>(stats.tokens);
  for (size_t i = 0; i < stats.xtx.size(); ++i) hessian.matrix[i] = factor * stats.xtx[i];
  double mean = 0;
  for (int64_t j = 0; j < n; ++j) {
    const float diagonal = hessian.matrix[j * n + j];
    if (!std::isfinite(diagonal) || diagonal < 0) {
      throw Error(ErrorCode::kFailure,
                  "calibration inputs are not finite in column " + std::to_string(j));
    }
    hessian.dead[j] = diagonal == 0;
    mean += hessian.dead[j] ? 1.0 : diagonal;
  }
  mean /= static_cast<double>(n);
  if (!with_factor) return hessian;

  std::vector<double> work;
  hessian.lambda = damping * mean;
  for (;; hessian.lambda *= 10, ++hessian.retries) {
    if (factor_damped(
            hessian, [](int64_t i) { return i; }, threads, &work))
      break;
    if (hessian.retries == 5) {
      throw Error(
          ErrorCode::kFailure,
          "the Hessian cannot be factored even with lambda = " + std::to_string(hessian.lambda),
          "calibrate on more tokens (--nsamples, --seqlen)");
    }
  }
  hessian.factor = to_floats(work, n);
  for (int64_t i = 0; i < n; ++i) hessian.diagonal.push_back(hessian.factor[i * n + i]);
  return hessian;
}

std::vector<float> permuted_factor(const Hessian& hessian, const std::vector<int64_t>& order,
                                   int threads) {
  std::vector<double> work;
  if (!factor_damped(
          hessian, [&](int64_t i) { return order[i]; }, threads, &work)) {
    throw Error(ErrorCode::kFailure,
                "the Hessian cannot be factored by descending diagonal with lambda = " +
                    std::to_string(hessian.lambda),
                "raise --damping, or give --no-act-order");
  }
  return to_floats(work, hessian.width);
}

}  // namespace billm
