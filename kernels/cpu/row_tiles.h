// Kernels of the quantizers, on tiles of 64 rows of a weight stored column by column: a "lane" is a
// row, so every row's arithmetic is the same sequence of fp32 operations whatever the vector width,
// and the results are the same bytes on every CPU (no fused multiply-add is used anywhere).
//
// Notation (docs/methods, GPTQ/LDLQ): H = R R^T with R upper triangular; D = W - Q; the error of a
// row is |D R|^2, so with D of the earlier columns known, column c is best quantized to the level
// nearest to w_c + (sum_{i<c} D_i R_ic) / R_cc.
#pragma once

#include <cstdint>

namespace billm::kernels {

inline constexpr int kTileRows = 64;   // lanes of a tile
inline constexpr int kMaxLevels = 3;   // magnitude classes of a column set
inline constexpr int kColumnSets = 2;  // 0 ordinary, 1 salient
inline constexpr int kMaxGroupWidth = 4096;
inline constexpr int kMaxUnknowns = kColumnSets * kMaxLevels + 1;  // levels and one offset

// out[c][lane] += sum_{i < count} d[i][lane] * factor[i * stride + c], c < width.
// d [count][64], out [width][64].
void accumulate_feedback(const float* d, int64_t count, const float* factor, int64_t stride,
                         int64_t width, float* out);

// The triangle of one quantization group of R, as the kernels want it.
struct GroupFactor {
  int width = 0;
  const float* rows = nullptr;     // [width][width]: R[c][j], 0 for j < c
  const float* columns = nullptr;  // [width][width]: columns[c][i] = R[i][c], 0 for i > c
  const float* norm = nullptr;     // [width]: sum_j R[c][j]^2
};

// x R = y for each lane: x_c = (y_c - sum_{i<c} x_i R_ic) / R_cc. y, x [width][64]; may be the
// same.
void solve_factor(const GroupFactor& factor, const float* y, float* x);

// y = x R for each lane.
void multiply_factor(const GroupFactor& factor, const float* x, float* y);

// What the levels of a tile's group are, per lane.
struct Levels {
  int classes[kColumnSets] = {0, 0};
  alignas(64) float level[kColumnSets][kMaxLevels][kTileRows] = {};  // growing within a set
  alignas(64) float offset[kTileRows] = {};                          // 0 where there are no offsets
};

// The grid of a tile's integers, per lane: code c in 0..last is worth (c - zero) * step.
struct IntegerGrid {
  alignas(64) float step[kTileRows] = {};
  alignas(64) float inverse[kTileRows] = {};  // 1 / step; 0 where step is 0
  alignas(64) float zero[kTileRows] = {};     // in 0..last
  float last = 0;
};

// Codes of one group of a tile.
struct GroupCodes {
  const uint8_t* set = nullptr;  // [width]: column set of each column
  const float* keep = nullptr;   // [width][64]: 1 binary, 0 pruned or integer; null: all binary
  float* q = nullptr;            // [width][64]: value of each weight
  float* sign = nullptr;         // [width][64]: +1, -1; 0 where keep is 0
  float* cls = nullptr;          // [width][64]: class 0, 1, 2; or the code of an integer
  const IntegerGrid* integers = nullptr;  // not null: weights with keep 0 are integers of this grid
};

// Feedback form (i): column by column, each weight takes the level nearest to its target. w
// [width][64] are the weights with the feedback of the earlier groups; delta [width][64] gets w -
// q; loss [64] gets |delta R|^2 per lane.
void code_with_feedback(const GroupFactor& factor, const Levels& levels, const float* w,
                        const GroupCodes& codes, float* delta, float* loss);

// No feedback: each weight takes its nearest level; delta and loss as above.
void code_nearest(const GroupFactor& factor, const Levels& levels, const float* w,
                  const GroupCodes& codes, float* delta, float* loss);

// One sweep of coordinate descent over the codes for fixed levels: each weight in turn takes the
// level that minimizes |delta R|^2 given all the others. residual [width][64] is delta R on entry
// and exit; delta and codes are updated; loss [64] is recomputed.
void descend_codes(const GroupFactor& factor, const Levels& levels, const GroupCodes& codes,
                   float* delta, float* residual, float* loss);

// The same signs and classes under new levels: codes.q and delta = w - q. Integers stay.
void requantize(const GroupFactor& factor, const Levels& levels, const float* w,
                const GroupCodes& codes, float* delta);

// The normal equations of the levels for fixed codes: unknown u = set * kMaxLevels + class (and the
// offset, kMaxUnknowns - 1, if with_offset). gram [U][U][64] (upper part), right [U][64] with
// y = w R as `target` [width][64]. scratch: kMaxUnknowns * 2 * width * 64 floats.
void level_equations(const GroupFactor& factor, const GroupCodes& codes, const int* classes,
                     bool with_offset, const float* target, float* scratch, float* gram,
                     float* right);

// Names of the Highway targets that this machine runs, and a switch to force one (tests).
// force_target(0) goes back to the best.
int64_t supported_targets();
void force_target(int64_t target);

}  // namespace billm::kernels
