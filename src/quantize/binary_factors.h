// Binary factors by ADMM: the least tr((W - A B) H (W - A B)') over A [n, r] and B [r, m] that are
// both signs times a rank-one magnitude (dbf.cpp; Double Binary Factorization, arXiv 2505.11076).
#pragma once

#include <cstdint>
#include <vector>

#include "billm/quantize/methods.h"

namespace billm {

// The problem with columns scaled so that diag H is nearly 1 (the penalty of the ADMM has then the
// right size for every column), W by its root mean square, in the basis of H's eigenvectors.
struct BinaryProblem {
  // Throws Error{kFailure} for weights or Hessians that are not finite.
  BinaryProblem(const WeightView& weight, const Hessian& hessian, int threads);

  int64_t rows, cols;
  int threads;
  float size = 0;             // root mean square of W
  std::vector<float> scale;   // [cols]
  std::vector<float> basis;   // [cols, cols]: V, H = V diag(values) V'
  std::vector<float> values;  // [cols], ascending
  std::vector<float> target;  // [rows, cols]: W H V
};

// One side of the factorization: z = signs o (u v'), and the scaled dual variable of the ADMM.
struct BinarySide {
  BinarySide(int64_t rows, int64_t cols, uint64_t seed);  // random signs
  // z = the point nearest to x + dual, dual += x - z.
  void project(const std::vector<float>& x, int threads);

  int64_t rows, cols;
  std::vector<float> z, dual;  // [rows, cols]
  std::vector<float> u, v;     // [rows], [cols]

 private:
  std::vector<float> sums_;
};

struct BinarySides {
  BinarySide left, right;  // A / size [n, r] and B diag(scale) [r, m]
};
// The factors of this rank; signs that mean nothing where W is 0.
BinarySides find_binary_factors(const BinaryProblem& problem, int64_t rank);

}  // namespace billm
