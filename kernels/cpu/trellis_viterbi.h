// The encoder of a trellis plane (docs/format.md): the path of least error through one segment of a
// group of four columns. A row's state is a byte; with K bits a row, state s is followed by
// ((s << K) | b) & 255, so the rows' states are one stream of bits.
//
// Metrics are int16, so that a vector holds twice as many as of floats, and every operation is
// exact (saturating sums, products rounded as vpmulhrsw does), so all instruction sets find the
// same path. With y = x F and t[s] = T[s] unit F, the distance of a state is
//   |y - t[s]|^2 = |y|^2 - 2 y.t[s] + |t[s]|^2,
// where |y|^2 is added once for each set of predecessors, not for each state. A = max |t[s]| is the
// unit: a distance of A^2 is 7900 steps. A row with |y| > 2 A counts as its point of length 2 A in
// the same direction: outliers choose what is nearest in direction and do not overflow.
#pragma once

#include <hwy/aligned_allocator.h>

#include <cstdint>

namespace billm::kernels {

inline constexpr int kTrellisStates = 256;
inline constexpr int kTrellisColumns = 4;  // of a group
inline constexpr int kMaxTrellisRate = 4;  // bits of a row, K

// The distances of one group of columns.
struct TrellisMetric {
  alignas(64) int16_t table[kTrellisColumns][kTrellisStates] = {};  // t[s] / A in 32358ths
  alignas(64) int16_t norm[kTrellisStates] = {};                    // |t[s]|^2 / A^2 in 7900ths
  float factor[kTrellisColumns][kTrellisColumns] = {};              // F / (2 A)
};

// The distance of x from state s is |(x - T[s] * table_unit) F|, with F[i][j] = factor[i][j]:
// column j of the product is sum_i x_i F[i][j]. A factor that is 0 or not finite gives a metric of
// zeros.
TrellisMetric make_trellis_metric(const int8_t table[kTrellisStates][kTrellisColumns],
                                  float table_unit,
                                  const float factor[kTrellisColumns][kTrellisColumns]);

// Memory that calls share, one a thread; it grows as needed.
class TrellisScratch {
 public:
  // int16 numbers, aligned to 64 bytes; what was there is lost.
  int16_t* reserve(int64_t count);

 private:
  int64_t count_ = 0;
  hwy::AlignedFreeUniquePtr<int16_t[]> memory_;
};

// states [rows]: the path with the least sum of row_weight * distance^2, all states being allowed
// in row 0; of equal ones the predecessors, and the last state, of lowest number. x [rows][4], of
// which values that are not finite count as 0; row_weight [rows] or null (all 1), of which negative
// ones and those that are not finite count as 0. None counts as more than 16 times the square of
// the mean root, since the others would lose their digits. k is 1..4.
void trellis_viterbi(const TrellisMetric& metric, int k, const float* x, const float* row_weight,
                     int64_t rows, uint8_t* states, TrellisScratch* scratch);

// The definition of the same bits, in plain loops.
void trellis_viterbi_reference(const TrellisMetric& metric, int k, const float* x,
                               const float* row_weight, int64_t rows, uint8_t* states);

// What a weight is multiplied by, so that the largest is 1: both use it.
float trellis_weight_scale(const float* row_weight, int64_t rows);

// Of the arithmetic that both share.
inline constexpr float kTrellisInputSteps = 32000;   // of |y| = 2 A
inline constexpr float kTrellisSquareSteps = 31600;  // of |y|^2 = 4 A^2
inline constexpr float kTrellisLargest = 1e6f;       // of |x|: squares stay finite
// Where the least metric of a row is put, above the lowest int16: rounding can go below it.
inline constexpr int16_t kTrellisFloor = -32700;

}  // namespace billm::kernels
