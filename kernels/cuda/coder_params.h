// What the kernels that code binary layers on a GPU are given, a quantization group at a time
// (coder_body.h).
#pragma once

#include <cstdint>

#include "kernels/row_levels.h"

namespace billm::kernels::cuda {

inline constexpr int kMaxCodedWidth = 512;                       // columns of a group
inline constexpr int kRowLevels = kColumnSets * kMaxLevels + 1;  // levels by set, then the offset
inline constexpr int kFeedbackTile = 64;                         // rows and columns of a product
inline constexpr int kFeedbackThreads = 256;

enum class CodeFeedback { kColumns, kBlocks, kNone };  // form (i), form (ii), none

// Pointers are to the memory of the device. The notation is row_tiles.h's: H = R R^T, D = W - Q.
struct CoderParams {
  // The layer.
  int64_t rows = 0, cols = 0;
  const float* weight = nullptr;    // [rows, cols]
  const float* factor = nullptr;    // [cols, cols]: R
  const float* diagonal = nullptr;  // [cols]: R_jj
  const float* norm = nullptr;      // [cols]: sum of R_ij^2 over the columns j of i's group
  const uint8_t* set = nullptr;     // [cols]: column set
  const uint8_t* mask = nullptr;    // [rows, cols], or null: all weights are binary
  uint8_t binary = 1;               // what the mask says of binary weights
  // Weights that are not binary are integers (code c is worth (c - zero) * step), not pruned, if
  // `step` is not null; [rows].
  const float* step = nullptr;
  const float* inverse = nullptr;  // 1 / step; 0 where step is 0
  const float* zero = nullptr;
  float last = 0;  // the largest code

  // How it is coded.
  int classes[kColumnSets] = {0, 0};
  LevelRounding rounding;
  CodeFeedback feedback = CodeFeedback::kColumns;
  int refine_rounds = 0;
  bool descend = true;

  // The group: columns [first, first + width).
  int64_t first = 0;
  int width = 0;

  // Results, and what groups leave to those after them.
  float* delta = nullptr;     // [rows, cols]: D, of this group and those before it
  float* carried = nullptr;   // [rows, width]: sum over the columns i before the group of D_i R_ic
  uint8_t* region = nullptr;  // [rows, cols]: 0 pruned, 1 + class, 1 + K + class, 1 + K + S integer
  uint8_t* code = nullptr;    // [rows, cols]: 1 = plus; or the integer
  float* levels = nullptr;    // [rows][kRowLevels] of this group
};

// Bytes of memory that a warp needs for a row's group: shared memory on a GPU.
int64_t coder_bytes(int width);

}  // namespace billm::kernels::cuda
