// TrellisCodes: a factor in which the weights of a column group share bits with their neighbours
// (trellis-coded quantization with a table of 256 entries; QTIP, arXiv 2406.11235). docs/format.md,
// "Layout `trellis`", defines every bit of it.
//
// Four neighbouring columns are a group. A plane of rate K walks down the rows of each group: every
// row adds K new bits, and the last eight bits, the state, choose the row's four values from one
// table that all layers share. Planes are summed, each coding what the ones before left. Rows are
// cut into segments, each with a start of its own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace billm {

inline constexpr int kTrellisColumns = 4;   // of a group
inline constexpr int kTrellisStates = 256;  // one byte
inline constexpr int kMaxTrellisRate = 4;   // bits of a row, group and plane
inline constexpr int kMaxTrellisPlanes = 4;
inline constexpr int kTrellisShift = 19;  // values are integers times 2^-19 and the row's scale

// T[state][column], part of the format.
using TrellisTable = int8_t[kTrellisStates][kTrellisColumns];
extern const TrellisTable kTrellisTable;

// What is fixed for a factor before its codes are known.
struct TrellisFormat {
  int64_t rows = 0, cols = 0;
  std::vector<int> rates;  // K of each plane, 1..4

  int planes() const { return static_cast<int>(rates.size()); }
  int64_t groups() const { return (cols + kTrellisColumns - 1) / kTrellisColumns; }
  // Rows of every segment but the last, which has the rest.
  int64_t segment_rows() const;
  int64_t segments() const { return (rows + kMaxSegmentRows - 1) / kMaxSegmentRows; }
  // Bits of a plane's stream of one group, and its bytes.
  int64_t group_bits(int plane) const;
  int64_t group_bytes(int plane) const { return (group_bits(plane) + 7) / 8; }
  // Bits of a weight as methods count them: a quarter of the rates' sum.
  double bits() const;
  bool operator==(const TrellisFormat&) const = default;

  static constexpr int64_t kMaxSegmentRows = 512;
};
// Throws Error{kBadInput} unless every field is in its range (`where` starts the message).
void check_trellis_format(const TrellisFormat& format, const std::string& where);

struct TrellisCodes {
  TrellisFormat format;
  // [planes][groups][rows]: the state of each row. Within a segment the upper 8 - K bits of a state
  // are the lower ones of the row before.
  std::vector<std::vector<uint8_t>> states;
  std::vector<float> scale;  // [rows]: >= 0, not -0, exact in fp16
};
// All zeros.
TrellisCodes make_trellis_codes(const TrellisFormat& format);

// What a unit of the table is worth in each plane, times 2^kTrellisShift: from the rates alone.
std::vector<int32_t> trellis_gains(const std::vector<int>& rates);
// The root mean square of what the planes before each one leave of weights of variance 1, as the
// gains have it; [planes], the first is 1.
std::vector<float> trellis_residuals(const std::vector<int>& rates);

// The value of one row's four columns without its scale: `states` are those of the planes.
void trellis_values(const std::vector<int32_t>& gains, const uint8_t* states, float* values);

// W [rows, cols].
std::vector<float> dequantize(const TrellisCodes& codes, int threads = 1);

// Throws Error{kFailure} naming the first violation.
void check_codes(const TrellisCodes& codes, int threads = 1);

}  // namespace billm
