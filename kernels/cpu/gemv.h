// y = W x on the CPU for layers in the form of kernels/plane_tiles.h, by tables: four columns of a
// plane are a number of four bits, and the 16 sums of +-x that it can mean are computed once per
// token; a row's plane costs one table lookup for four weights, whatever the layer's method.
//
// The entries of a table are rounded to 8 bits; a segment has one scale, so that its largest entry
// is 127. Error bound: each table adds at most half a step, hence
//   |y - W x| <= sum_segments scale/2 * tables * sum_planes |c_plane|  (+ fp32 rounding).
// That is about the error of rounding x itself to 8 bits in blocks of 256, as other runtimes do.
#pragma once

#include <hwy/aligned_allocator.h>

#include <cstdint>

#include "kernels/plane_tiles.h"

namespace billm::kernels {

inline constexpr int kMaxGemvTokens = 4;

// The order of tiles that gemv() wants on this machine: with AVX-512 VBMI and VNNI, lines of 16
// rows and 4 octets, of which one instruction looks up 64 table entries and another adds four for
// each row; else 64 rows and 1 octet.
TileOrder cpu_tile_order();

// The input of one token, made ready for one layer.
class GemvInput {
 public:
  // Memory for the layer, before fill().
  void reserve(const PlaneTilesView& view);
  // x [cols]. The part of the segments [first, first + count), so that threads can share it. A
  // segment with NaN or infinity makes all products NaN.
  void fill(const PlaneTilesView& view, const float* x, int first, int count);
  void prepare(const PlaneTilesView& view, const float* x) {
    reserve(view);
    fill(view, x, 0, view.segment_count);
  }

  const uint8_t* tables() const { return tables_.get(); }  // [octets][2][16], see gemv.cpp
  const float* x() const { return x_.get(); }              // [8 * octets] in run order, scaled
  const float* scale() const { return scale_.get(); }      // [segments] worth of a table's step
  const float* sum() const { return sum_.get(); }          // [segments] sum of x

 private:
  template <typename T>
  using Aligned = hwy::AlignedFreeUniquePtr<T[]>;
  int64_t octets_ = 0, segments_ = 0;  // allocated
  Aligned<uint8_t> tables_;
  Aligned<float> x_, scale_, sum_;
};

// y[t * stride + row] for the rows of the tiles [first, first + count) and the tokens
// t < tokens <= kMaxGemvTokens. `view` must be in cpu_tile_order().
void gemv(const PlaneTilesView& view, const GemvInput* inputs, int tokens, int64_t first,
          int64_t count, float* y, int64_t stride);

// The weights of the tiles [first, first + count), column scales included, column by column: out
// [cols][stride], of which row r of the tiles is element r; stride >= count * tile_rows. For
// products with many tokens.
void decode_tiles(const PlaneTilesView& view, int64_t first, int64_t count, float* out,
                  int64_t stride);

// The definition of both, in plain loops, for any order of tiles; x in run order
// (GemvInput::x()).
void gemv_reference(const PlaneTilesView& view, const float* x, int64_t first, int64_t count,
                    float* y);
void decode_reference(const PlaneTilesView& view, int64_t first, int64_t count, float* out,
                      int64_t stride);

}  // namespace billm::kernels
