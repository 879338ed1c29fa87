// A method in a rotated basis: W [n, m] is quantized as U W V' under V (X^T X) V', and the layer is
// U' Q V. Rotated weights have no outliers and rotated inputs no strong channels, so few levels
// lose less (QuIP#, arXiv 2402.04396, sections 2 and 3). The error tr(D H D') is the same in both
// bases.
//
// All in double by the reference transform of codes/rotation.h and rounded to fp32 after each side:
// the same bytes on every machine and for any number of threads.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "billm/calibrate/stats.h"
#include "billm/codes/layer_codes.h"
#include "billm/codes/rotation.h"
#include "billm/quantize/methods.h"

namespace billm {

// The seed of a rotation, 31 bits, so that rotations of a model do not repeat each other: the upper
// 31 of the 64 bits of splitmix64's finalizer of FNV-1a of the text "<seed>/<block>/<name>".
// `name`: that of the group of linears that share the input, or of the linear whose output is
// rotated.
uint32_t rotation_seed(uint64_t seed, int64_t block, const std::string& name);

// The rotations of one linear; none: that side stays as it is.
struct LayerRotation {
  std::optional<Rotation> out;  // U [n]
  std::optional<Rotation> in;   // V [m]
};

// U' Q V of what was quantized in the rotated basis.
LayerCodes rotated_codes(LayerCodes codes, const LayerRotation& rotation);

// Every row, or every column, of a row-major matrix [rows, cols] becomes the rotation times it.
void rotate_rows(const Rotation& rotation, float* matrix, int64_t rows, int64_t cols, int threads);
void rotate_columns(const Rotation& rotation, float* matrix, int64_t rows, int64_t cols,
                    int threads);

// X^T X becomes V (X^T X) V', symmetric to the bit. Without memory of its own but for some columns.
void rotate_stats(const Rotation& in, int threads, CalibrationStats* stats);

// U W V', [rows, cols]. `dead` (dead_columns() of the statistics before they are rotated): columns
// of W whose input was always 0 count as 0, as in GPTQ's published code. In another basis they
// would be spread over all columns, and the codes would serve weights that nothing is known to
// read.
std::vector<float> rotate_weight(const WeightView& weight, const std::vector<uint8_t>& dead,
                                 const LayerRotation& rotation, int threads);

}  // namespace billm
