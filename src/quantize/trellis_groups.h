// The 4 x 4 matrices in which the column groups of a trellis are coded.
#pragma once

#include <vector>

#include "billm/codes/trellis.h"
#include "billm/quantize/hessian.h"

namespace billm {

// Of one group. In a last group with fewer columns, the missing rows and columns are 0.
struct GroupMetric {
  // M, e' = e M: the error of a row e is |e'|^2. Scaled to a mean square row of 1.
  float factor[kTrellisColumns][kTrellisColumns] = {};
  float inverse[kTrellisColumns][kTrellisColumns] = {};  // of what solve() solves
  float added[kTrellisColumns] = {};                     // on the diagonal of H: damping

  void multiply(const float* e, float* moved) const { transform(factor, e, moved); }
  // The row y A^-1, A being R_bb (feedback) or H_bb (sweeps).
  void solve(const float* y, float* moved) const { transform(inverse, y, moved); }

 private:
  static void transform(const float matrix[kTrellisColumns][kTrellisColumns], const float* from,
                        float* to) {
    for (int j = 0; j < kTrellisColumns; ++j) {
      float sum = from[0] * matrix[0][j];
      for (int i = 1; i < kTrellisColumns; ++i) sum += from[i] * matrix[i][j];
      to[j] = sum;
    }
  }
};

// M = R_bb of the groups before: for the pass with feedback.
std::vector<GroupMetric> feedback_metrics(const Hessian& hessian);
// M = L with L L^T = H_bb, damped: for sweeps.
std::vector<GroupMetric> sweep_metrics(const Hessian& hessian);

}  // namespace billm
