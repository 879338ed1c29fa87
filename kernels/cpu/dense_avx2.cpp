// Dense algebra for AVX2 and FMA; kernels/CMakeLists.txt has the compiler's flags. See dense-inl.h.
#define Eigen Eigen_avx2
#define BILLM_DENSE_TARGET kDenseAvx2
#define BILLM_DENSE_NAME "AVX2"
#include "kernels/cpu/dense-inl.h"
