// The body of dense_baseline.cpp, dense_avx2.cpp and dense_avx512.cpp, which define
// BILLM_DENSE_TARGET (the table's name), BILLM_DENSE_NAME (what users read) and Eigen (a macro: the
// name of Eigen's namespace in this file, so that the linker never takes a function that was
// compiled for another instruction set for this one's). Nothing else may be included here that has
// inline functions which other files use, too.
#define EIGEN_MPL2_ONLY
#define EIGEN_NO_DEBUG
#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <Eigen/Eigenvalues>

#include "kernels/cpu/dense_target.h"

namespace billm::kernels {
namespace {

template <typename T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <typename T>
using ColumnMatrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor>;
using Stride = Eigen::OuterStride<>;
template <typename T>
using Block = Eigen::Map<Matrix<T>, 0, Stride>;
template <typename T>
using ConstBlock = Eigen::Map<const Matrix<T>, 0, Stride>;

template <typename T>
void multiply_piece(int transposed, int64_t m, int64_t n, int64_t k, const T* a, int64_t a_stride,
                    const T* b, int64_t b_stride, T* c, int64_t c_stride) {
  Block<T> out(c, m, n, Stride(c_stride));
  if (transposed == 1) {
    out.noalias() = ConstBlock<T>(a, k, m, Stride(a_stride)).transpose() *
                    ConstBlock<T>(b, k, n, Stride(b_stride));
  } else if (transposed == 2) {
    out.noalias() = ConstBlock<T>(a, m, k, Stride(a_stride)) *
                    ConstBlock<T>(b, n, k, Stride(b_stride)).transpose();
  } else {
    out.noalias() =
        ConstBlock<T>(a, m, k, Stride(a_stride)) * ConstBlock<T>(b, k, n, Stride(b_stride));
  }
}

// A symmetric matrix is the same in both orders; the lower half of the rows is the upper half of
// the columns.
template <typename T>
bool factor(int64_t n, T* a) {
  Eigen::Map<Matrix<T>> matrix(a, n, n);
  Eigen::LLT<Eigen::Ref<Matrix<T>>, Eigen::Lower> llt(matrix);
  return llt.info() == Eigen::Success;
}

template <typename T>
void solve(int64_t n, int64_t count, const T* a, T* b) {
  const Eigen::Map<const Matrix<T>> lower(a, n, n);
  Eigen::Map<ColumnMatrix<T>> rows(b, n, count);  // a row of b is a column here
  lower.template triangularView<Eigen::Lower>().solveInPlace(rows);
  lower.transpose().template triangularView<Eigen::Upper>().solveInPlace(rows);
}

bool eigen(int64_t n, float* a, float* values) {
  Eigen::Map<Matrix<float>> matrix(a, n, n);
  // The solver reads the lower triangle and works on columns.
  const Eigen::SelfAdjointEigenSolver<ColumnMatrix<float>> solver(matrix);
  if (solver.info() != Eigen::Success) return false;
  matrix = solver.eigenvectors();
  Eigen::Map<Eigen::VectorXf>(values, n) = solver.eigenvalues();
  return true;
}

bool tridiagonal(int64_t n, float* a, float* diagonal, float* beside) {
  Eigen::Map<Matrix<float>> matrix(a, n, n);
  const Eigen::Tridiagonalization<ColumnMatrix<float>> form(matrix);
  Eigen::Map<Eigen::VectorXf>(diagonal, n) = form.diagonal();
  if (n > 1) Eigen::Map<Eigen::VectorXf>(beside, n - 1) = form.subDiagonal();
  matrix = ColumnMatrix<float>(form.matrixQ());
  return matrix.allFinite() && Eigen::Map<Eigen::VectorXf>(diagonal, n).allFinite();
}

template <typename T>
constexpr DenseFunctions<T> functions() {
  return {multiply_piece<T>, factor<T>, solve<T>};
}

void cache_bytes(int64_t* first, int64_t* second, int64_t* third) {
  Eigen::internal::manage_caching_sizes(Eigen::GetAction, first, second, third);
}

}  // namespace

const DenseTarget BILLM_DENSE_TARGET = {BILLM_DENSE_NAME,    cache_bytes, functions<float>(),
                                        functions<double>(), eigen,       tridiagonal};

}  // namespace billm::kernels
