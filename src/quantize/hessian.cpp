// Hessian and factor: see include/billm/quantize/hessian.h.
#include "billm/quantize/hessian.h"

#include <cmath>

#include "billm/base/error.h"
#include "billm/base/parallel.h"
#include "kernels/cpu/cholesky.h"

namespace billm {

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

  const int64_t stride = (n + 7) / 8 * 8;
  std::vector<double> work(static_cast<size_t>(n * stride));
  hessian.lambda = damping * mean;
  for (;; hessian.lambda *= 10, ++hessian.retries) {
    parallel_for(n, threads, [&](int64_t i) {
      for (int64_t j = 0; j < n; ++j) work[i * stride + j] = hessian.matrix[i * n + j];
      work[i * stride + i] += (hessian.dead[i] ? 1.0 : 0.0) + hessian.lambda;
    });
    if (kernels::factor_upper(work.data(), n, stride, threads)) break;
    if (hessian.retries == 5) {
      throw Error(
          ErrorCode::kFailure,
          "the Hessian cannot be factored even with lambda = " + std::to_string(hessian.lambda),
          "calibrate on more tokens (--nsamples, --seqlen)");
    }
  }
  hessian.factor.resize(static_cast<size_t>(n * n));
  hessian.diagonal.resize(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      hessian.factor[i * n + j] = static_cast<float>(work[i * stride + j]);
    }
    hessian.diagonal[i] = hessian.factor[i * n + i];
  }
  return hessian;
}

}  // namespace billm
