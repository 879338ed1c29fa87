// The Hessian of a linear layer's output error and its factor (GPTQ; docs/format.md is not
// concerned).
#pragma once

#include <cstdint>
#include <vector>

#include "billm/calibrate/stats.h"
#include "billm/quantize/accelerator.h"

namespace billm {

// H = (2 / tokens) X^T X. The factor is of the damped matrix H + lambda I = R R^T, R upper
// triangular. With U = R^-1 this is GPTQ's (H + lambda I)^-1 = U^T U, so U_jj = 1 / R_jj; R serves
// both the saliency (w_j R_jj)^2 and the feedback: the error of a row is |(w - q) R|^2 (LDLQ, QuIP
// arXiv 2307.13304, shows that this is GPTQ's recursion).
struct Hessian {
  int64_t width = 0;
  std::vector<float> matrix;    // [width, width]: H, undamped
  std::vector<float> factor;    // [width, width]: R; empty if not asked for
  std::vector<float> diagonal;  // [width]: R_jj
  std::vector<uint8_t> dead;    // [width]: 1 where sum x_j^2 = 0 (H_jj was set to 1 before damping)
  double lambda = 0;            // damping that was needed
  int retries = 0;              // times lambda was multiplied by 10
};

// 1 where sum x_j^2 = 0, [width]. Statistics that are empty or not finite: Error{kFailure}.
std::vector<uint8_t> dead_columns(const CalibrationStats& stats);

// `damping`: lambda = damping * mean(diag H). If the factorization fails, lambda grows tenfold, at
// most 5 times; then Error{kFailure}. Statistics that are not finite: Error{kFailure}. Memory at
// its largest: 12 * width^2 bytes, of which 4 are those of `stats`, which become the matrix.
// `accelerator`: the device that factors; null: the CPU.
Hessian make_hessian(CalibrationStats stats, bool with_factor, double damping, int threads,
                     const Accelerator* accelerator = nullptr);

// The factor of the damped matrix with its columns and rows in the order `order` ([width], a
// permutation): R [width, width]. Throws Error{kFailure} if it does not exist.
std::vector<float> permuted_factor(const Hessian& hessian, const std::vector<int64_t>& order,
                                   int threads, const Accelerator* accelerator = nullptr);

}  // namespace billm
