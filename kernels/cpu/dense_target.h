// One instruction set's part of the dense algebra (dense.h): whole pieces of work on one thread,
// without exceptions and without anything of the standard library but what Eigen takes from it.
#pragma once

#include <cstdint>

namespace billm::kernels {

// As dense.h says, with leading dimensions (`*_stride`, in elements) so that a piece is a block of
// rows or columns. `transposed`: 0 none, 1 left, 2 right.
template <typename T>
struct DenseFunctions {
  void (*multiply)(int transposed, int64_t m, int64_t n, int64_t k, const T* a, int64_t a_stride,
                   const T* b, int64_t b_stride, T* c, int64_t c_stride);
  bool (*factor)(int64_t n, T* a);                                 // a = L L', L in the lower half
  void (*solve)(int64_t n, int64_t count, const T* factor, T* b);  // rows of b
};

struct DenseTarget {
  const char* name;
  void (*cache_bytes)(int64_t* first, int64_t* second, int64_t* third);
  DenseFunctions<float> single_precision;
  DenseFunctions<double> double_precision;
  bool (*eigen)(int64_t n, float* a, float* values);
  bool (*tridiagonal)(int64_t n, float* a, float* diagonal, float* beside);
};

extern const DenseTarget kDenseBaseline;
#if defined(__x86_64__)
extern const DenseTarget kDenseAvx2, kDenseAvx512;
#endif

}  // namespace billm::kernels
