// check_codes: see include/billm/codes/region_codes.h. Every layer passes it before it is
// packed, so the weights are looked at by a loop without branches, and again only to name what is
// wrong.
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>

#include "billm/base/error.h"
#include "billm/base/parallel.h"
#include "code_sizes.h"

namespace billm {
namespace {

constexpr int64_t kPart = 4096;  // scales that a thread takes at a time

[[noreturn]] void broken(const std::string& what) {
  throw Error(ErrorCode::kFailure, "quantized layer is inconsistent: " + what);
}

bool exact_in_format(float value, ScaleFormat format, float base) {
  switch (format) {
    case ScaleFormat::kLog8:
      return log8_decode(log8_encode(value, base), base) == value;
    case ScaleFormat::kF16:
      return round_to_half(value) == value;
    case ScaleFormat::kF32:
      return true;
  }
  return false;
}

void check_sizes(const RegionCodes& linear) {
  const CodeSizes sizes = code_sizes(linear.shape);
  if (linear.region.size() != sizes.weights || linear.code.size() != sizes.weights ||
      linear.salient.size() != sizes.salient || linear.scale.size() != sizes.scales ||
      linear.offset.size() != sizes.offsets || linear.column_scale.size() != sizes.column_scales ||
      linear.step.size() != sizes.steps || linear.zero.size() != sizes.steps) {
    broken("vector sizes do not match the shape");
  }
}

void check_levels(const RegionCodes& linear, int threads) {
  const RegionFormat& shape = linear.shape;
  if (!std::isfinite(linear.base) || linear.base < 0) broken("the base is not finite and >= 0");
  const auto check = [&](const std::vector<float>& values, auto body) {
    parallel_parts(static_cast<int64_t>(values.size()), kPart, threads,
                   [&](int64_t first, int64_t end) {
                     for (int64_t i = first; i < end; ++i) body(values[i]);
                   });
  };
  check(linear.scale, [&](float s) {
    if (!std::isfinite(s)) broken("a scale is not finite");
    if (!exact_in_format(s, shape.scale_format, linear.base)) {
      broken(std::string("a scale is not exact in ") + scale_format_name(shape.scale_format));
    }
  });
  check(linear.offset, [&](float o) {
    if (!std::isfinite(o)) broken("an offset is not finite");
    // log8 offsets are in units of the largest scale: the packer checks them.
    if (shape.scale_format == ScaleFormat::kF16 && round_to_half(o) != o) {
      broken("an offset is not exact in f16");
    }
  });
  check(linear.column_scale, [&](float c) {
    if (!std::isfinite(c) || c <= 0 || round_to_half(c) != c) {
      broken("a column scale is not positive and exact in f16");
    }
  });
  check(linear.step, [&](float s) {
    if (!std::isfinite(s) || s < 0 || std::signbit(s) || round_to_half(s) != s) {
      broken("a step is not >= 0 and exact in f16");
    }
  });
  const int integer_codes = 1 << shape.integer_bits;
  for (const uint8_t z : linear.zero) {
    if (z >= integer_codes) broken("a zero has too many bits");
  }
  for (const uint8_t s : linear.salient) {
    if (s > 1) broken("salient column marked with neither 0 nor 1");
  }
}

// How many codes a weight of a region has, in ordinary columns and in salient ones; 0 where the
// region may not be.
using CodesOf = std::array<std::array<uint16_t, 256>, 2>;

CodesOf codes_of(const RegionFormat& shape) {
  CodesOf codes{};
  for (int salient = 0; salient < 2; ++salient) {
    const int first = salient ? 1 + shape.classes : 1;
    const int count = salient ? shape.salient_classes : shape.classes;
    for (int r = first; r < first + count; ++r) codes[salient][r] = 2;
    if (shape.nm.active()) codes[salient][kPrunedRegion] = 1;
    if (shape.integer_bits > 0) {
      codes[salient][shape.integer_region()] = static_cast<uint16_t>(1 << shape.integer_bits);
    }
  }
  return codes;
}

// Columns [start, start + group_size(start)) share a count of kept weights.
int64_t group_columns(const RegionFormat& shape, int64_t start) {
  return std::min<int64_t>(shape.nm.active() ? shape.nm.m : 1, shape.cols - start);
}

bool row_is_right(const RegionCodes& linear, const CodesOf& codes, const uint8_t* salient,
                  int64_t row) {
  const RegionFormat& shape = linear.shape;
  const uint8_t* region = linear.region.data() + row * shape.cols;
  const uint8_t* code = linear.code.data() + row * shape.cols;
  unsigned wrong = 0;
  for (int64_t col = 0; col < shape.cols; ++col) {
    wrong |= static_cast<unsigned>(code[col] >= codes[salient[col]][region[col]]);
  }
  if (!shape.nm.active()) return wrong == 0;
  for (int64_t start = 0; start < shape.cols; start += shape.nm.m) {
    const int64_t columns = group_columns(shape, start);
    int kept = 0;
    for (int64_t col = start; col < start + columns; ++col) kept += region[col] != kPrunedRegion;
    wrong |= static_cast<unsigned>(kept != shape.nm.kept(columns));
  }
  return wrong == 0;
}

[[noreturn]] void name_wrong(const RegionCodes& linear, const CodesOf& codes,
                             const uint8_t* salient, int64_t row) {
  const RegionFormat& shape = linear.shape;
  int64_t columns = 0;
  for (int64_t start = 0; start < shape.cols; start += columns) {
    columns = group_columns(shape, start);
    int kept = 0;
    for (int64_t col = start; col < start + columns; ++col) {
      const uint8_t region = linear.region[row * shape.cols + col];
      const int allowed = codes[salient[col]][region];
      if (allowed == 0 && region != kPrunedRegion) {
        broken("region " + std::to_string(region) + " in column " + std::to_string(col));
      }
      if (linear.code[row * shape.cols + col] >= std::max(allowed, 1)) broken("code out of range");
      kept += region != kPrunedRegion;
    }
    const int expected = shape.nm.active() ? shape.nm.kept(columns) : static_cast<int>(columns);
    if (kept != expected) {
      broken("row " + std::to_string(row) + ", columns from " + std::to_string(start) +
             ": expected " + std::to_string(expected) + " kept, got " + std::to_string(kept));
    }
  }
  broken("row " + std::to_string(row));
}

}  // namespace

void check_codes(const RegionCodes& linear, int threads) {
  const RegionFormat& shape = linear.shape;
  check_region_format(shape, "quantized layer");
  check_sizes(linear);
  check_levels(linear, threads);
  const CodesOf codes = codes_of(shape);
  const std::vector<uint8_t> none(linear.salient.empty() ? shape.cols : 0);
  const uint8_t* salient = linear.salient.empty() ? none.data() : linear.salient.data();
  std::atomic<int64_t> first_wrong{shape.rows};
  constexpr int64_t kRows = 64;
  parallel_parts(shape.rows, kRows, threads, [&](int64_t first, int64_t end) {
    for (int64_t row = first; row < end; ++row) {
      if (row_is_right(linear, codes, salient, row)) continue;
      int64_t before = first_wrong;
      while (row < before && !first_wrong.compare_exchange_weak(before, row)) {
      }
      return;
    }
  });
  if (first_wrong < shape.rows) name_wrong(linear, codes, salient, first_wrong);
}

}  // namespace billm
