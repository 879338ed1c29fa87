// y = W x on the CPU for trellis layers in the form of trellis_tiles.h, by tables: for each group
// of four columns the 256 sums that a state can mean are computed once per token, and a row's plane
// costs one lookup for four weights, whatever K is.
//
// Entries have 11 bits: 8 would err by about 1 % of a sum of independent terms, these do by 0.3 %.
// A chunk of columns has one scale. Its sums are exact integers and the rest is fp32 in one order
// with nothing fused, so every instruction set and every sharing out of rows gives the same floats.
//
// Error bound: an entry is off by less than 1.5 steps,
//   |y - W x| <= |scale| * sum_chunks 1.5 step * groups * sum_planes |gain|  (+ fp32 rounding).
#pragma once

#include <hwy/aligned_allocator.h>

#include <cstdint>

#include "kernels/cpu/trellis_tiles.h"

namespace billm::kernels {

inline constexpr int kMaxTrellisTokens = 8;
inline constexpr int kTrellisChunk = 32;        // groups that share a scale
inline constexpr int kTrellisTableBytes = 512;  // of a group

// The input of one token, made ready for the layers whose columns it is: it depends on the table
// and on x alone, so that layers that read the same x can share it.
class TrellisInput {
 public:
  static int64_t chunks(int64_t cols) {
    return (cols + kTrellisChunk * kTrellisColumns - 1) / (kTrellisChunk * kTrellisColumns);
  }
  // Memory for `cols` columns, before fill().
  void reserve(int64_t cols);
  // x [cols]. The part of the chunks [first, first + count), so that threads can share it. A chunk
  // with NaN or infinity makes all products NaN.
  void fill(const TrellisTable& table, int64_t cols, const float* x, int64_t first, int64_t count);
  void prepare(const TrellisTable& table, int64_t cols, const float* x) {
    reserve(cols);
    fill(table, cols, x, 0, chunks(cols));
  }

  // [chunks][32][512]; of a group with split tables 256 bytes, the low 6 bits of the entries, and
  // as many with the other bits plus 16; else 256 int16.
  const uint8_t* tables() const { return tables_.get(); }
  int entry(int64_t group, int state) const;
  const float* step() const { return step_.get(); }  // [chunks] worth of 1 in a table

 private:
  int64_t chunks_ = 0;  // allocated
  bool split_ = false;
  hwy::AlignedFreeUniquePtr<uint8_t[]> tables_;
  hwy::AlignedFreeUniquePtr<float[]> step_;
};

// y[t * stride + row] for the rows of the tiles [first, first + count) and the tokens
// t < tokens <= kMaxTrellisTokens.
void trellis_gemv(const TrellisTilesView& view, const TrellisInput* inputs, int tokens,
                  int64_t first, int64_t count, float* y, int64_t stride);

// The weights of the tiles [first, first + count), column by column: out [cols][stride], of which
// row r of the tiles is element r; stride >= count * 64. For products with many tokens.
void trellis_decode(const TrellisTilesView& view, int64_t first, int64_t count, float* out,
                    int64_t stride);

// The same floats in plain loops, and the entries of one chunk: x [32 * 4], entries [32][256].
void trellis_gemv_reference(const TrellisTilesView& view, const TrellisInput* inputs, int tokens,
                            int64_t first, int64_t count, float* y, int64_t stride);
void trellis_decode_reference(const TrellisTilesView& view, int64_t first, int64_t count,
                              float* out, int64_t stride);
void trellis_chunk_reference(const TrellisTable& table, const float* x, int16_t* entries,
                             float* step);
// Whether this machine's tables are split: AVX-512 VBMI looks up bytes. Small numbers, because
// several can be added as bytes before they must become sums of 16 bits, for which there would be
// more shuffles.
bool trellis_split_tables();

// The state of a row (0..63) of a tile, from the bytes of its group.
inline int trellis_state(const uint8_t* bytes, int k, int row) {
  const int bit = k * row;
  const unsigned two = unsigned{bytes[bit / 8]} << 8 | (bit % 8 == 0 ? 0u : bytes[bit / 8 + 1]);
  return static_cast<int>(two >> (8 - bit % 8) & 0xff);
}

inline constexpr int kTrellisLowBits = 6, kTrellisHighBias = 16;
// Low and high parts of which the sum is a byte.
inline constexpr int64_t kTrellisLowSum = 4, kTrellisHighSum = 8;

// Of the arithmetic of tables: x is brought to integers so that sums of T * 256 * x / 2^15 are at
// most kTrellisFine, of which an entry is a 16th.
inline constexpr float kTrellisFine = 16368;
// Smaller x count as 0.
inline constexpr float kTrellisSmallest = 1e-35f;
// How many steps the longest x of a chunk has.
inline float trellis_input_steps(const TrellisTable& table) {
  const float steps = kTrellisFine * 128 / table.longest;
  return steps < 32767 ? steps : 32767;
}

}  // namespace billm::kernels
