// Dense algebra for AVX-512; kernels/CMakeLists.txt has the compiler's flags. See dense-inl.h.
#define Eigen Eigen_avx512
#define BILLM_DENSE_TARGET kDenseAvx512
#define BILLM_DENSE_NAME "AVX-512"
#include "kernels/cpu/dense-inl.h"
