// See dense.h: the choice of the instruction set, and the split into pieces for the threads.
#include "kernels/cpu/dense.h"

#include <hwy/highway.h>
#include <hwy/targets.h>

#include <algorithm>
#include <type_traits>

#include "billm/base/parallel.h"
#include "kernels/cpu/dense_target.h"

namespace billm::kernels {
namespace {

// Rows or columns of a piece. A piece of a product packs the whole other operand, one load for 2 *
// 96 operations: smaller pieces waste more, larger ones leave threads without work (576 / 96 = 6).
constexpr int64_t kPiece = 96;

constexpr int64_t kWorthThreads = 10'000'000;  // multiplications, for threads_for()

const DenseTarget& target() {
#if defined(BILLM_DENSE_X86)
  // The better one of two targets has the lower bit.
  const int64_t best = hwy::SupportedTargets() & -hwy::SupportedTargets();
  if (best <= HWY_AVX3) return kDenseAvx512;
  if (best <= HWY_AVX2) return kDenseAvx2;
#endif
  return kDenseBaseline;
}

template <typename T>
const DenseFunctions<T>& functions() {
  if constexpr (std::is_same_v<T, float>) {
    return target().single_precision;
  } else {
    return target().double_precision;
  }
}

}  // namespace

template <typename T>
void multiply(Transposed transposed, int64_t m, int64_t n, int64_t k, const T* a, const T* b, T* c,
              int threads) {
  const DenseFunctions<T>& run = functions<T>();
  const bool left = transposed == Transposed::kLeft, right = transposed == Transposed::kRight;
  const int64_t a_stride = left ? m : k, b_stride = right ? k : n;
  const int which = left ? 1 : right ? 2 : 0;
  threads = threads_for(m * n * k, kWorthThreads, threads);
  if (m >= n) {  // pieces of rows
    parallel_parts(m, kPiece, threads, [&](int64_t first, int64_t end) {
      run.multiply(which, end - first, n, k, a + (left ? first : first * k), a_stride, b, b_stride,
                   c + first * n, n);
    });
  } else {
    parallel_parts(n, kPiece, threads, [&](int64_t first, int64_t end) {
      run.multiply(which, m, end - first, k, a, a_stride, b + (right ? first * k : first), b_stride,
                   c + first, n);
    });
  }
}

template <typename T>
bool solve_rows(int64_t n, int64_t count, T* a, T* b, int threads) {
  const DenseFunctions<T>& run = functions<T>();
  if (!run.factor(n, a)) return false;
  threads = threads_for(n * n * count, kWorthThreads, threads);
  parallel_parts(count, kPiece, threads,
                 [&](int64_t first, int64_t end) { run.solve(n, end - first, a, b + first * n); });
  return true;
}

bool eigen_symmetric(int64_t n, float* a, float* values) { return target().eigen(n, a, values); }

bool tridiagonal_symmetric(int64_t n, float* a, float* diagonal, float* beside) {
  return target().tridiagonal(n, a, diagonal, beside);
}

template void multiply(Transposed, int64_t, int64_t, int64_t, const float*, const float*, float*,
                       int);
template void multiply(Transposed, int64_t, int64_t, int64_t, const double*, const double*, double*,
                       int);
template bool solve_rows(int64_t, int64_t, float*, float*, int);
template bool solve_rows(int64_t, int64_t, double*, double*, int);

std::string dense_target() { return target().name; }

std::string dense_kind() {
  int64_t first = 0, second = 0, third = 0;
  target().cache_bytes(&first, &second, &third);
  return dense_target() + ", caches of " + std::to_string(first) + ", " + std::to_string(second) +
         " and " + std::to_string(third) + " bytes";
}

}  // namespace billm::kernels
