// RegionCodes: a linear layer in which every weight belongs to a region, and the one place that
// says what a code is worth. See docs/decisions/0001-regions.md and docs/format.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "billm/codes/scales.h"

namespace billm {

// N of every M consecutive columns of a row are kept; {0, 0}: nothing is pruned.
struct NmPattern {
  int n = 0;
  int m = 0;
  bool active() const { return m != 0; }
  // How many of `columns` (<= m) consecutive columns are kept: n in a full group,
  // ceil(columns * n / m) in a row's tail.
  int kept(int64_t columns) const { return static_cast<int>((columns * n + m - 1) / m); }
  std::string text() const { return std::to_string(n) + ":" + std::to_string(m); }
  bool operator==(const NmPattern&) const = default;
};

// Which offsets (means) the binary regions have. Stored by name: do not rename.
enum class OffsetKind : uint8_t { kNone = 0, kBlock = 1, kRegion = 2 };
const char* offset_kind_name(OffsetKind kind);
OffsetKind offset_kind_from_name(const std::string& name);  // throws Error{kBadInput}

inline constexpr uint8_t kPrunedRegion = 0;
inline constexpr int kMaxClasses = 3;

// What is fixed for a layer before its codes are known.
struct RegionFormat {
  int64_t rows = 0, cols = 0;  // weight [rows, cols] = [out, in]
  int block_size = 128;        // columns of a quantization group; the last one may have fewer
  NmPattern nm;
  int classes = 2;          // K: magnitude classes of ordinary columns
  int salient_classes = 2;  // S: those of salient columns; 0: no column is salient
                            // (S > K only with K = 1, no N:M and no scattered integers)
  ScaleFormat scale_format = ScaleFormat::kLog8;
  OffsetKind offset_kind = OffsetKind::kNone;
  bool column_scales = false;  // every value is multiplied by its column's scale (ARB-LLM RC)
  int integer_bits = 0;        // bits of a weight in the integer region, 2..8; 0: there is none
  // false: every weight is an integer (K = S = 0, nothing pruned, no offsets, no column scales;
  // scale_format f16, that of the steps). true (PB-LLM): any weight may be one (no N:M).
  bool scattered = false;

  int64_t groups() const { return (cols + block_size - 1) / block_size; }
  int regions() const { return classes + salient_classes; }  // R, the binary ones
  int integer_region() const { return regions() + 1; }       // where integer_bits > 0
  bool all_integers() const { return integer_bits > 0 && !scattered; }
  // How many (step, zero) pairs: one per row and group, per row for scattered integers.
  int64_t steps() const { return integer_bits == 0 ? 0 : scattered ? rows : groups() * rows; }
  int64_t group_of(int64_t col) const { return col / block_size; }
  bool operator==(const RegionFormat&) const = default;
};
// Throws Error{kBadInput} unless every field is in its range (`where` starts the message).
void check_region_format(const RegionFormat& shape, const std::string& where);

struct RegionCodes {
  RegionFormat shape;
  std::vector<uint8_t> region;      // [rows, cols]: 0 pruned, 1 + t ordinary, 1 + K + t salient,
                                    // 1 + R integer
  std::vector<uint8_t> code;        // [rows, cols]: sign bit, 1 = plus; 0 where pruned; or integer
  std::vector<uint8_t> salient;     // [cols]: 1 = salient column; empty if S = 0
  float base = 0;                   // log8: the largest scale a code can say
  std::vector<float> scale;         // [groups, R, rows], exact in scale_format
  std::vector<float> offset;        // kBlock: [groups, rows]; kRegion: [groups, R, rows]
  std::vector<float> column_scale;  // [cols], positive and exact in fp16; empty without
  std::vector<float> step;          // [groups, rows] or [rows]: >= 0 and exact in fp16
  std::vector<uint8_t> zero;        // as step: the code that means 0

  int64_t scale_index(int64_t group, int region, int64_t row) const {  // region 1..R
    return (group * shape.regions() + region - 1) * shape.rows + row;
  }
  int64_t offset_index(int64_t group, int region, int64_t row) const {
    return shape.offset_kind == OffsetKind::kBlock ? group * shape.rows + row
                                                   : scale_index(group, region, row);
  }
  int64_t step_index(int64_t group, int64_t row) const {
    return shape.scattered ? row : group * shape.rows + row;
  }
  // The value of one weight, fp32: the definition of every decoder in billm.
  float value(int64_t row, int64_t col) const;
};

// Allocates all vectors for `shape`, zero-filled.
RegionCodes make_region_codes(const RegionFormat& shape);

// W [rows, cols], row-major.
std::vector<float> dequantize(const RegionCodes& linear);

// Throws Error{kFailure} naming the first violation: sizes, regions allowed in their column,
// exactly N of M kept, finite scales that are exact in their format. Used by tests and the packer.
void check_codes(const RegionCodes& linear, int threads = 1);

// Share of weights per region, [R + 1] (index 0: pruned), [R + 2] with an integer region.
std::vector<double> region_shares(const RegionCodes& linear, int threads = 1);
// Share of salient columns.
double salient_share(const RegionCodes& linear);

}  // namespace billm
