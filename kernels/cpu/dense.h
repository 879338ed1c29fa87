// Dense algebra beyond the Cholesky factor: products, solves, symmetric eigendecomposition. Eigen
// does the work, compiled once per instruction set; which one runs is chosen as for the other
// kernels (BILLM_CPU_TARGET, limit_targets, force_target). The results are the same bytes at any
// thread count, since work is split by shapes alone; between instruction sets (and CPUs with other
// cache sizes, by which Eigen chooses its blocks) they differ in rounding.
//
// All matrices are row-major and contiguous. T is float or double; nothing needs
// the decompositions in double.
#pragma once

#include <cstdint>
#include <string>

namespace billm::kernels {

// Which operand of a product is taken transposed.
enum class Transposed { kNone, kLeft, kRight };

// c [m, n] = a b with a [m, k], b [k, n]; kLeft: a' b with a [k, m]; kRight: a b' with b [n, k].
// c does not overlap a or b.
template <typename T>
void multiply(Transposed transposed, int64_t m, int64_t n, int64_t k, const T* a, const T* b, T* c,
              int threads);

// Each row x of b [count, n] becomes the solution of a x = b, a [n, n] symmetric positive definite
// (the lower triangle is read), a is overwritten. Returns false, b untouched, if a is not positive
// definite.
template <typename T>
bool solve_rows(int64_t n, int64_t count, T* a, T* b, int threads);

// a [n, n], symmetric (the lower triangle is read) = V diag(values) V': a becomes V, whose columns
// are the eigenvectors; values [n] ascend. Returns false (a undefined) if it does not converge,
// which entries that are not finite bring about. On one thread.
bool eigen_symmetric(int64_t n, float* a, float* values);

// a [n, n], symmetric (the lower triangle is read) = Q T Q': a becomes Q, orthogonal, and T, which
// is tridiagonal, has diagonal [n] and beside it `beside` [n - 1]. A fourth of the time of the
// eigendecomposition, and as good to solve systems of a plus multiples of the identity with.
// Returns false (a undefined) for entries that are not finite. On one thread.
bool tridiagonal_symmetric(int64_t n, float* a, float* diagonal, float* beside);

// The instruction set that dense algebra runs with now: "baseline", "AVX2" or "AVX-512".
std::string dense_target();
// What the results depend on besides the operands: dense_target() and the sizes of the caches.
std::string dense_kind();

}  // namespace billm::kernels
