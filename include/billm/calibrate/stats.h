// What calibration knows about the input of one or several linear layers (q, k and v share one).
// Torch-free: the quantizers see this and nothing else of the model.
#pragma once

#include <cstdint>
#include <vector>

namespace billm {

struct CalibrationStats {
  int64_t width = 0;            // input columns of the linear layer
  int64_t tokens = 0;           // rows of X, each as often as it counts
  std::vector<float> xtx = {};  // [width, width]: X^T X, symmetric, both halves filled
  // For corrected targets (quantize/targets.h), else empty. Xo: what the original model has for X.
  std::vector<float> cross = {};  // [width, width]: Xo^T X
  // [stream_width, width]: D^T X, D = how far the residual stream, to which the layer's output will
  // be added, is behind the original's. Empty too for layers that do not write into it.
  std::vector<float> drift = {};
  int64_t stream_width() const { return static_cast<int64_t>(drift.size()) / width; }
};

}  // namespace billm
