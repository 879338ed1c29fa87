// What calibration knows about the input of one or several linear layers (q, k and v share one).
// Torch-free: the quantizers see this and nothing else of the model.
#pragma once

#include <cstdint>
#include <vector>

namespace billm {

struct CalibrationStats {
  int64_t width = 0;       // input columns of the linear layer
  int64_t tokens = 0;      // rows of X
  std::vector<float> xtx;  // [width, width]: X^T X, symmetric, both halves filled
};

}  // namespace billm
