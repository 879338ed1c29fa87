// Hessian and factor: see include/billm/quantize/hessian.h.
#include "billm/quantize/hessian.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstddef>
#include <utility>

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

// The factor as floats. The doubles' pages are given back on the way: for rows of 28,672 the two
// together would be 10 GB.
std::vector<float> to_floats(std::vector<double> work, int64_t n) {
  constexpr size_t kReleased = size_t{16} << 20;  // bytes at a time
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  auto* begin = reinterpret_cast<std::byte*>(work.data());
  const size_t front = reinterpret_cast<uintptr_t>(begin) % page;
  size_t released = front == 0 ? 0 : page - front;
  std::vector<float> factor;
  factor.reserve(static_cast<size_t>(n * n));  // its pages come as they are filled
  for (int64_t i = 0; i < n; ++i) {
    const double* row = work.data() + i * stride_of(n);
    factor.insert(factor.end(), row, row + n);
    const size_t done = sizeof(double) * static_cast<size_t>((i + 1) * stride_of(n));
    if (done < released + kReleased) continue;
    const size_t size = (done - released) / page * page;
    ::madvise(begin + released, size, MADV_DONTNEED);  // a hint: its result does not matter
    released += size;
  }
  return factor;
}

}  // namespace

Hessian make_hessian(CalibrationStats stats, bool with_factor, double damping, int threads) {
  const int64_t n = stats.width;
  if (stats.tokens < 1 || static_cast<int64_t>(stats.xtx.size()) != n * n) {
    throw Error(ErrorCode::kFailure, "calibration statistics are empty or have a wrong size");
  }
  Hessian hessian;
  hessian.width = n;
  hessian.matrix = std::move(stats.xtx);
  hessian.dead.assign(static_cast<size_t>(n), 0);
  const float factor = 2.0f / static_cast<float>(stats.tokens);
  for (float& h : hessian.matrix) h *= factor;
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
  hessian.factor = to_floats(std::move(work), n);
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
  return to_floats(std::move(work), hessian.width);
}

}  // namespace billm
