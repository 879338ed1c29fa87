// Upper factor R of a symmetric positive definite matrix, H = R R^T, in fp64 with a fixed order of
// operations: the same bits on every CPU and for every thread count.
#pragma once

#include <cstdint>

namespace billm::kernels {

// In: h [n][stride] row-major, symmetric (both halves filled), stride >= n a multiple of 8.
// Out: R in the upper triangle, 0 below. Returns false if a pivot is not positive (h is then
// undefined).
bool factor_upper(double* h, int64_t n, int64_t stride, int threads);

}  // namespace billm::kernels
