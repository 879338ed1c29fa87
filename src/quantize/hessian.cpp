// Hessian and factor: see include/billm/quantize/hessian.h.
#include "billm/quantize/hessian.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "billm/base/error.h"
#include "billm/base/parallel.h"
#include "kernels/cpu/cholesky.h"

namespace billm {
namespace {

int64_t stride_of(int64_t n) { return (n + 7) / 8 * 8; }

struct Free {
  void operator()(double* memory) const { std::free(memory); }
};
using Doubles = std::unique_ptr<double, Free>;  // [n, stride]; malloc, so that it can shrink

// Factors the damped matrix, element (i, j) at (index(i), index(j)), into `work`.
template <typename Index>
bool factor_damped(const Hessian& hessian, Index index, int threads, Doubles* work) {
  const int64_t n = hessian.width, stride = stride_of(n);
  if (*work == nullptr) {
    work->reset(
        static_cast<double*>(std::malloc(sizeof(double) * static_cast<size_t>(n * stride))));
    if (*work == nullptr) throw std::bad_alloc();
  }
  double* values = work->get();
  parallel_for(n, threads, [&](int64_t i) {
    const float* row = hessian.matrix.data() + index(i) * n;
    double* target = values + i * stride;
    for (int64_t j = 0; j < n; ++j) target[j] = row[index(j)];
    std::fill(target + n, target + stride, 0.0);
    target[i] += (hessian.dead[index(i)] ? 1.0 : 0.0) + hessian.lambda;
  });
  return kernels::factor_upper(values, n, stride, threads);
}

// The factor as floats. They are made at the front of `work`, the rest of which is given back
// before the result is allocated: with rows of 28,672 the doubles alone are 6.6 GB.
std::vector<float> to_floats(Doubles work, int64_t n) {
  const auto size = static_cast<size_t>(n);
  std::vector<float> row(size);
  auto* front = reinterpret_cast<std::byte*>(work.get());
  for (size_t i = 0; i < size; ++i) {
    const double* from = work.get() + static_cast<int64_t>(i) * stride_of(n);
    std::copy_n(from, size, row.begin());
    std::memcpy(front + sizeof(float) * size * i, row.data(), sizeof(float) * size);
  }
  const size_t bytes = sizeof(float) * size * size;
  if (void* shrunk = std::realloc(work.get(), bytes)) {
    static_cast<void>(work.release());
    work.reset(static_cast<double*>(shrunk));
  }
  std::vector<float> factor(size * size);
  std::memcpy(factor.data(), work.get(), bytes);
  return factor;
}

// The factor of the damped matrix in `order` (empty: as it is); empty if there is none. `work` may
// be used again for another lambda.
std::vector<float> damped_factor(const Hessian& hessian, const std::vector<int64_t>& order,
                                 int threads, const Accelerator* accelerator, Doubles* work) {
  if (accelerator != nullptr) {
    std::vector<double> added(static_cast<size_t>(hessian.width));
    for (size_t i = 0; i < added.size(); ++i) {
      added[i] = (hessian.dead[i] ? 1.0 : 0.0) + hessian.lambda;
    }
    return accelerator->factor(hessian.matrix, added, order);
  }
  const bool factored = order.empty()
                            ? factor_damped(
                                  hessian, [](int64_t i) { return i; }, threads, work)
                            : factor_damped(
                                  hessian, [&](int64_t i) { return order[i]; }, threads, work);
  return factored ? to_floats(std::move(*work), hessian.width) : std::vector<float>();
}

}  // namespace

std::vector<uint8_t> dead_columns(const CalibrationStats& stats) {
  const int64_t n = stats.width;
  if (stats.tokens < 1 || static_cast<int64_t>(stats.xtx.size()) != n * n) {
    throw Error(ErrorCode::kFailure, "calibration statistics are empty or have a wrong size");
  }
  const float factor = 2.0f / static_cast<float>(stats.tokens);
  std::vector<uint8_t> dead(static_cast<size_t>(n), 0);
  for (int64_t j = 0; j < n; ++j) {
    const float diagonal = stats.xtx[j * n + j] * factor;  // of H
    if (!std::isfinite(diagonal) || diagonal < 0) {
      throw Error(ErrorCode::kFailure,
                  std::string("calibration inputs ") +
                      (diagonal < 0 ? "have a negative sum of squares" : "are not finite") +
                      " in column " + std::to_string(j));
    }
    dead[j] = diagonal == 0;
  }
  return dead;
}

Hessian make_hessian(CalibrationStats stats, bool with_factor, double damping, int threads,
                     const Accelerator* accelerator) {
  const int64_t n = stats.width;
  Hessian hessian;
  hessian.width = n;
  hessian.dead = dead_columns(stats);
  hessian.matrix = std::move(stats.xtx);
  const float factor = 2.0f / static_cast<float>(stats.tokens);
  for (float& h : hessian.matrix) h *= factor;
  double mean = 0;
  for (int64_t j = 0; j < n; ++j) {
    mean += hessian.dead[j] ? 1.0 : hessian.matrix[j * n + j];
  }
  mean /= static_cast<double>(n);
  if (!with_factor) return hessian;

  Doubles work;
  hessian.lambda = damping * mean;
  for (;; hessian.lambda *= 10, ++hessian.retries) {
    hessian.factor = damped_factor(hessian, {}, threads, accelerator, &work);
    if (!hessian.factor.empty()) break;
    if (hessian.retries == 5) {
      throw Error(
          ErrorCode::kFailure,
          "the Hessian cannot be factored even with lambda = " + std::to_string(hessian.lambda),
          "calibrate on more tokens (--nsamples, --seqlen)");
    }
  }
  for (int64_t i = 0; i < n; ++i) hessian.diagonal.push_back(hessian.factor[i * n + i]);
  return hessian;
}

std::vector<float> permuted_factor(const Hessian& hessian, const std::vector<int64_t>& order,
                                   int threads, const Accelerator* accelerator) {
  Doubles work;
  std::vector<float> factor = damped_factor(hessian, order, threads, accelerator, &work);
  if (factor.empty()) {
    throw Error(ErrorCode::kFailure,
                "the Hessian cannot be factored by descending diagonal with lambda = " +
                    std::to_string(hessian.lambda),
                "raise --damping, or give --no-act-order");
  }
  return factor;
}

}  // namespace billm
