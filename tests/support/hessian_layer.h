// A random weight with the Hessian of correlated inputs, for the tests of methods that work in its
// metric.
#pragma once

#include <cstdint>
#include <vector>

#include "billm/codes/layer_codes.h"
#include "billm/quantize/hessian.h"
#include "support/random_layer.h"

namespace billm::test {

struct HessianLayer {
  HessianLayer(int64_t rows, int64_t cols, uint32_t seed = 1)
      : rows(rows),
        cols(cols),
        w(random_normal(rows * cols, seed, 0.05f)),
        hessian(make_hessian(correlated_stats(cols, 3 * cols, seed + 1), true, 0.01, 1)) {}
  // tr(D H' D') / tr(W H' W'), H' damped.
  double error(const LayerCodes& codes) const {
    const std::vector<float> zeros(w.size(), 0.0f);
    return layer_error(w, dequantize(codes), hessian.matrix, hessian.lambda, cols) /
           layer_error(w, zeros, hessian.matrix, hessian.lambda, cols);
  }
  int64_t rows, cols;
  std::vector<float> w;
  Hessian hessian;
};

}  // namespace billm::test
