// Dense algebra for what every CPU has; kernels/CMakeLists.txt has the compiler's flags. See
// dense-inl.h.
#define Eigen Eigen_baseline
#define BILLM_DENSE_TARGET kDenseBaseline
#define BILLM_DENSE_NAME "baseline"
#include "kernels/cpu/dense-inl.h"
