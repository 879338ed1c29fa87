// IntegerRows: a matrix outside of the blocks (embeddings, output head) as integers with a scale
// for each row, or for groups of a row's columns: layout "integer_rows" (docs/format.md). Rows are
// decoded one by one, which is how an embedding is read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "billm/pack/packed_planes.h"

namespace billm {

inline constexpr int kFewestRowBits = 4, kMostRowBits = 8;  // the two that there are

struct IntegerRows {
  int64_t rows = 0, cols = 0;
  int bits = 8;               // of an integer: 4 or 8
  int64_t block_size = 0;     // columns that share a scale; the last ones of a row may be fewer
  std::vector<Plane> planes;  // codes, scales
  std::vector<std::vector<std::byte>> owned;  // storage of planes that were made here

  IntegerRows() = default;
  IntegerRows(IntegerRows&&) = default;
  IntegerRows& operator=(IntegerRows&&) = default;
  IntegerRows(const IntegerRows&) = delete;  // planes may point into `owned`
  IntegerRows& operator=(const IntegerRows&) = delete;

  int64_t groups() const { return (cols + block_size - 1) / block_size; }
  int64_t row_bytes() const { return (cols * bits + 7) / 8; }
  int64_t bytes() const;       // of both planes
  double stored_bits() const;  // 8 * bytes / (rows * cols)
  // A row's integer, -2^(bits-1) and up, and the scale of a row's group.
  int code(int64_t row, int64_t col) const;
  float scale(int64_t row, int64_t group) const;
};

// The columns that share a scale where billm chooses: all of a row with 8 bits, 32 with 4
// (docs/measurements/embeddings.md).
int64_t row_block_size(int64_t cols, int bits);
// What a matrix takes with them.
int64_t integer_rows_bytes(int64_t rows, int64_t cols, int bits);

// Planes of this size, all zero, to be filled by round_rows().
IntegerRows make_integer_rows(int64_t rows, int64_t cols, int bits);

// Of rows: sums of squares of what rounding changed, and of the weights.
struct RoundingError {
  double error = 0, total = 0;
};
// Rounds rows [first, first + count) of the matrix, `weight` [count, cols], to the nearest
// integers. With 8 bits the largest weight of a row is 127 scales; with 4 bits the scale of a group
// is the one of a few with the smallest squared error. The same for any number of threads. Throws
// Error{kBadInput} starting with `where` for a weight too large for scales in fp16.
RoundingError round_rows(const float* weight, int64_t first, int64_t count, int threads,
                         const std::string& where, IntegerRows* to);

// The module's description in a shard's metadata, and the matrix without planes that it says.
// parse_integer_rows throws Error{kBadInput} starting with `where`, for unknown keys too.
std::string describe(const IntegerRows& rows);
bool describes_integer_rows(const std::string& description);
IntegerRows parse_integer_rows(const std::string& description, const std::string& where);

// Checks that there are exactly the planes that the description asks for, with valid contents.
// Throws Error{kBadInput} starting with `where`.
void check_integer_rows(const IntegerRows& rows, const std::string& where);

// Decodes rows [first, first + count) to fp32, row-major at `out`; all are finite. Pure and
// thread-safe.
void decode_rows(const IntegerRows& rows, int64_t first, int64_t count, float* out);

// The same weights as a layer of region codes, for running from planes: rows [first, first +
// count), with groups of at most `most_block` columns.
RegionCodes region_codes(const IntegerRows& rows, int64_t first, int64_t count, int most_block);

}  // namespace billm
