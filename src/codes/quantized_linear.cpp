// Regions and their values: see include/billm/codes/quantized_linear.h.
#include "billm/codes/quantized_linear.h"

#include <cmath>

#include "billm/base/error.h"

namespace billm {
namespace {

constexpr const char* kOffsetNames[] = {"none", "block", "region"};

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

}  // namespace

const char* offset_kind_name(OffsetKind kind) { return kOffsetNames[static_cast<int>(kind)]; }

OffsetKind offset_kind_from_name(const std::string& name) {
  for (int i = 0; i < 3; ++i) {
    if (name == kOffsetNames[i]) return static_cast<OffsetKind>(i);
  }
  throw bad_input("unknown offset kind '" + name + "': expected none, block or region");
}

void check_linear_shape(const LinearShape& shape, const std::string& where) {
  const auto require = [&](bool ok, const std::string& what, int64_t got) {
    if (!ok) throw bad_input(where + ": " + what + ", got " + std::to_string(got));
  };
  constexpr int64_t kMaxSide = int64_t{1} << 24;
  require(shape.rows >= 1 && shape.rows <= kMaxSide, "expected rows in 1..2^24", shape.rows);
  require(shape.cols >= 1 && shape.cols <= kMaxSide, "expected cols in 1..2^24", shape.cols);
  require(shape.block_size >= 1, "expected a positive block_size", shape.block_size);
  if (shape.nm.n != 0 || shape.nm.m != 0) {
    require(shape.nm.m >= 2 && shape.nm.m <= 16, "expected M of N:M in 2..16", shape.nm.m);
    require(shape.nm.n >= 1 && shape.nm.n <= shape.nm.m, "expected N of N:M in 1..M", shape.nm.n);
    require(shape.block_size % shape.nm.m == 0, "expected block_size to be a multiple of M",
            shape.block_size);
  }
  require(shape.integer_bits == 0 || (shape.integer_bits >= 2 && shape.integer_bits <= 8),
          "expected integer_bits 0 or 2..8", shape.integer_bits);
  if (shape.all_integers()) {
    require(shape.classes == 0 && shape.salient_classes == 0,
            "expected no classes where every weight is an integer",
            shape.classes + shape.salient_classes);
    require(!shape.nm.active() && !shape.column_scales && shape.offset_kind == OffsetKind::kNone &&
                shape.scale_format == ScaleFormat::kF16,
            "expected neither N:M nor offsets nor column scales and f16 steps beside integers of "
            "bits",
            shape.integer_bits);
    return;
  }
  require(!shape.scattered || shape.integer_bits > 0, "expected integer_bits in 2..8",
          shape.integer_bits);
  require(!shape.scattered || !shape.nm.active(), "expected no N:M beside scattered integers, M",
          shape.nm.m);
  require(shape.classes >= 1 && shape.classes <= kMaxClasses, "expected classes in 1..3",
          shape.classes);
  // More classes in salient columns than elsewhere need a class plane of their own.
  const bool own_plane = shape.classes == 1 && !shape.nm.active() && !shape.scattered;
  const int most = own_plane ? kMaxClasses : shape.classes;
  require(shape.salient_classes >= 0 && shape.salient_classes <= most,
          "expected salient_classes in 0.." + std::to_string(most), shape.salient_classes);
}

float QuantizedLinear::value(int64_t row, int64_t col) const {
  const int r = region[row * shape.cols + col];
  if (r == kPrunedRegion) return 0.0f;
  const int64_t block = shape.block_of(col);
  const int c = code[row * shape.cols + col];
  float level;
  if (shape.integer_bits > 0 && r == shape.integer_region()) {
    const int64_t i = step_index(block, row);
    level = static_cast<float>(c - int{zero[i]}) * step[i];
  } else {
    const float s = scale[scale_index(block, r, row)];
    level = c != 0 ? s : -s;
    if (shape.offset_kind != OffsetKind::kNone) level += offset[offset_index(block, r, row)];
  }
  return shape.column_scales ? level * column_scale[col] : level;
}

QuantizedLinear make_quantized_linear(const LinearShape& shape) {
  QuantizedLinear linear;
  linear.shape = shape;
  const size_t weights = static_cast<size_t>(shape.rows * shape.cols);
  const size_t scales = static_cast<size_t>(shape.blocks() * shape.regions() * shape.rows);
  linear.region.assign(weights, 0);
  linear.code.assign(weights, 0);
  if (shape.salient_classes > 0) linear.salient.assign(static_cast<size_t>(shape.cols), 0);
  linear.scale.assign(scales, 0.0f);
  if (shape.column_scales) linear.column_scale.assign(static_cast<size_t>(shape.cols), 1.0f);
  linear.step.assign(static_cast<size_t>(shape.steps()), 0.0f);
  linear.zero.assign(static_cast<size_t>(shape.steps()), 0);
  if (shape.offset_kind == OffsetKind::kBlock) {
    linear.offset.assign(static_cast<size_t>(shape.blocks() * shape.rows), 0.0f);
  } else if (shape.offset_kind == OffsetKind::kRegion) {
    linear.offset.assign(scales, 0.0f);
  }
  return linear;
}

std::vector<float> dequantize(const QuantizedLinear& linear) {
  const LinearShape& shape = linear.shape;
  std::vector<float> weight(static_cast<size_t>(shape.rows * shape.cols));
  for (int64_t row = 0; row < shape.rows; ++row) {
    for (int64_t col = 0; col < shape.cols; ++col) {
      weight[row * shape.cols + col] = linear.value(row, col);
    }
  }
  return weight;
}

void check_codes(const QuantizedLinear& linear) {
  const LinearShape& shape = linear.shape;
  check_linear_shape(shape, "quantized layer");
  const QuantizedLinear expected = make_quantized_linear(shape);
  if (linear.region.size() != expected.region.size() ||
      linear.code.size() != expected.code.size() ||
      linear.salient.size() != expected.salient.size() ||
      linear.scale.size() != expected.scale.size() ||
      linear.offset.size() != expected.offset.size() ||
      linear.column_scale.size() != expected.column_scale.size() ||
      linear.step.size() != expected.step.size() || linear.zero.size() != expected.zero.size()) {
    broken("vector sizes do not match the shape");
  }
  for (const float s : linear.scale) {
    if (!std::isfinite(s)) broken("a scale is not finite");
    if (!exact_in_format(s, shape.scale_format, linear.base)) {
      broken(std::string("a scale is not exact in ") + scale_format_name(shape.scale_format));
    }
  }
  if (!std::isfinite(linear.base) || linear.base < 0) broken("the base is not finite and >= 0");
  for (const float o : linear.offset) {
    if (!std::isfinite(o)) broken("an offset is not finite");
    // log8 offsets are in units of the largest scale: the packer checks them.
    if (shape.scale_format == ScaleFormat::kF16 && round_to_half(o) != o) {
      broken("an offset is not exact in f16");
    }
  }
  for (const float c : linear.column_scale) {
    if (!std::isfinite(c) || c <= 0 || round_to_half(c) != c) {
      broken("a column scale is not positive and exact in f16");
    }
  }
  for (const float s : linear.step) {
    if (!std::isfinite(s) || s < 0 || std::signbit(s) || round_to_half(s) != s) {
      broken("a step is not >= 0 and exact in f16");
    }
  }
  const int integer_codes = 1 << shape.integer_bits;
  for (const uint8_t z : linear.zero) {
    if (z >= integer_codes) broken("a zero has too many bits");
  }
  for (const uint8_t s : linear.salient) {
    if (s > 1) broken("salient column marked with neither 0 nor 1");
  }
  const int group = shape.nm.active() ? shape.nm.m : 1;
  for (int64_t row = 0; row < shape.rows; ++row) {
    for (int64_t start = 0; start < shape.cols; start += group) {
      const int64_t columns = std::min<int64_t>(group, shape.cols - start);
      int kept = 0;
      for (int64_t col = start; col < start + columns; ++col) {
        const int r = linear.region[row * shape.cols + col];
        const uint8_t code = linear.code[row * shape.cols + col];
        const bool salient = shape.salient_classes > 0 && linear.salient[col] != 0;
        const int first = salient ? 1 + shape.classes : 1;
        const int count = salient ? shape.salient_classes : shape.classes;
        const bool integer = shape.integer_bits > 0 && r == shape.integer_region();
        if (r != kPrunedRegion && !integer && (r < first || r >= first + count)) {
          broken("region " + std::to_string(r) + " in column " + std::to_string(col));
        }
        const int codes = r == kPrunedRegion ? 1 : integer ? integer_codes : 2;
        if (code >= codes) broken("code out of range");
        kept += r != kPrunedRegion;
      }
      const int expected_kept =
          shape.nm.active() ? shape.nm.kept(columns) : static_cast<int>(columns);
      if (kept != expected_kept) {
        broken("row " + std::to_string(row) + ", columns from " + std::to_string(start) +
               ": expected " + std::to_string(expected_kept) + " kept, got " +
               std::to_string(kept));
      }
    }
  }
}

std::vector<double> region_shares(const QuantizedLinear& linear) {
  const int regions = linear.shape.regions() + (linear.shape.integer_bits > 0 ? 1 : 0);
  std::vector<double> shares(static_cast<size_t>(regions + 1), 0.0);
  for (const uint8_t r : linear.region) shares[r] += 1.0;
  for (double& share : shares) share /= static_cast<double>(linear.region.size());
  return shares;
}

double salient_share(const QuantizedLinear& linear) {
  if (linear.salient.empty()) return 0.0;
  double count = 0;
  for (const uint8_t s : linear.salient) count += s;
  return count / static_cast<double>(linear.salient.size());
}

}  // namespace billm
