// The product that carries the errors of earlier quantization groups over to the next one
// (coder_body.h).
#pragma once

#include "kernels/cuda/coder_params.h"

namespace billm::kernels::cuda {

// carried = D[:, :first] R[:first, group]: a tile of 64 rows by 64 columns for each block of 256
// threads, 4 x 4 for a thread; the sums run over the columns of D in order.
template <typename Thread>
BILLM_HOST_DEVICE void feedback_body(Thread& thread, const CoderParams& params) {
  constexpr int kTile = kFeedbackTile, kDepth = 16, kEach = 4, kAcross = kTile / kEach;
  float* const left = reinterpret_cast<float*>(thread.shared());  // [kDepth][kTile + 1]
  float* const right = left + kDepth * (kTile + 1);               // [kDepth][kTile]
  const int64_t first_row = int64_t{thread.block_x()} * kTile;
  const int first_column = thread.block_y() * kTile;
  const int x = thread.index() % kAcross, y = thread.index() / kAcross;
  float sum[kEach][kEach] = {};
  for (int64_t start = 0; start < params.first; start += kDepth) {
    for (int i = thread.index(); i < kTile * kDepth; i += kFeedbackThreads) {
      const int row = i / kDepth, depth = i % kDepth;
      const bool inside = first_row + row < params.rows && start + depth < params.first;
      left[depth * (kTile + 1) + row] =
          inside ? params.delta[(first_row + row) * params.cols + start + depth] : 0.0f;
    }
    for (int i = thread.index(); i < kTile * kDepth; i += kFeedbackThreads) {
      const int depth = i / kTile, column = i % kTile;
      const bool inside = start + depth < params.first && first_column + column < params.width;
      right[depth * kTile + column] =
          inside
              ? params.factor[(start + depth) * params.cols + params.first + first_column + column]
              : 0.0f;
    }
    thread.sync();
    for (int depth = 0; depth < kDepth; ++depth) {
      for (int i = 0; i < kEach; ++i) {
        const float d = left[depth * (kTile + 1) + y * kEach + i];
        for (int j = 0; j < kEach; ++j) {
          sum[i][j] += d * right[depth * kTile + x + j * kAcross];
        }
      }
    }
    thread.sync();
  }
  for (int i = 0; i < kEach; ++i) {
    const int64_t row = first_row + y * kEach + i;
    for (int j = 0; j < kEach; ++j) {
      const int column = first_column + x + j * kAcross;
      if (row < params.rows && column < params.width) {
        params.carried[row * params.width + column] = sum[i][j];
      }
    }
  }
}
inline constexpr int kFeedbackBytes = 16 * (2 * kFeedbackTile + 1) * 4;

}  // namespace billm::kernels::cuda
