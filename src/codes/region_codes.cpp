// Regions and their values: see include/billm/codes/region_codes.h.
#include "billm/codes/region_codes.h"

#include <array>
#include <mutex>

#include "billm/base/error.h"
#include "billm/base/parallel.h"
#include "code_sizes.h"

namespace billm {
namespace {

constexpr const char* kOffsetNames[] = {"none", "block", "region"};

}  // namespace

const char* offset_kind_name(OffsetKind kind) { return kOffsetNames[static_cast<int>(kind)]; }

OffsetKind offset_kind_from_name(const std::string& name) {
  for (int i = 0; i < 3; ++i) {
    if (name == kOffsetNames[i]) return static_cast<OffsetKind>(i);
  }
  throw bad_input("unknown offset kind '" + name + "': expected none, block or region");
}

void check_region_format(const RegionFormat& shape, const std::string& where) {
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

float RegionCodes::value(int64_t row, int64_t col) const {
  const int r = region[row * shape.cols + col];
  if (r == kPrunedRegion) return 0.0f;
  const int64_t group = shape.group_of(col);
  const int c = code[row * shape.cols + col];
  float level;
  if (shape.integer_bits > 0 && r == shape.integer_region()) {
    const int64_t i = step_index(group, row);
    level = static_cast<float>(c - int{zero[i]}) * step[i];
  } else {
    const float s = scale[scale_index(group, r, row)];
    level = c != 0 ? s : -s;
    if (shape.offset_kind != OffsetKind::kNone) level += offset[offset_index(group, r, row)];
  }
  return shape.column_scales ? level * column_scale[col] : level;
}

CodeSizes code_sizes(const RegionFormat& shape) {
  CodeSizes sizes;
  sizes.weights = static_cast<size_t>(shape.rows * shape.cols);
  if (shape.salient_classes > 0) sizes.salient = static_cast<size_t>(shape.cols);
  sizes.scales = static_cast<size_t>(shape.groups() * shape.regions() * shape.rows);
  if (shape.offset_kind == OffsetKind::kBlock) {
    sizes.offsets = static_cast<size_t>(shape.groups() * shape.rows);
  } else if (shape.offset_kind == OffsetKind::kRegion) {
    sizes.offsets = sizes.scales;
  }
  if (shape.column_scales) sizes.column_scales = static_cast<size_t>(shape.cols);
  sizes.steps = static_cast<size_t>(shape.steps());
  return sizes;
}

RegionCodes make_region_codes(const RegionFormat& shape) {
  const CodeSizes sizes = code_sizes(shape);
  RegionCodes linear;
  linear.shape = shape;
  linear.region.assign(sizes.weights, 0);
  linear.code.assign(sizes.weights, 0);
  linear.salient.assign(sizes.salient, 0);
  linear.scale.assign(sizes.scales, 0.0f);
  linear.offset.assign(sizes.offsets, 0.0f);
  linear.column_scale.assign(sizes.column_scales, 1.0f);
  linear.step.assign(sizes.steps, 0.0f);
  linear.zero.assign(sizes.steps, 0);
  return linear;
}

std::vector<float> dequantize(const RegionCodes& linear) {
  const RegionFormat& shape = linear.shape;
  std::vector<float> weight(static_cast<size_t>(shape.rows * shape.cols));
  for (int64_t row = 0; row < shape.rows; ++row) {
    for (int64_t col = 0; col < shape.cols; ++col) {
      weight[row * shape.cols + col] = linear.value(row, col);
    }
  }
  return weight;
}

std::vector<double> region_shares(const RegionCodes& linear, int threads) {
  const auto count = static_cast<int64_t>(linear.region.size());
  const int regions = linear.shape.regions() + (linear.shape.integer_bits > 0 ? 1 : 0);
  std::vector<int64_t> weights(static_cast<size_t>(regions + 1));
  std::mutex mutex;
  parallel_parts(count, int64_t{1} << 20, threads, [&](int64_t first, int64_t end) {
    std::array<int64_t, 256> here{};
    for (int64_t i = first; i < end; ++i) ++here[linear.region[i]];
    const std::lock_guard<std::mutex> lock(mutex);
    for (int r = 0; r <= regions; ++r) weights[r] += here[r];
  });
  std::vector<double> shares;
  for (const int64_t w : weights) {
    shares.push_back(static_cast<double>(w) / static_cast<double>(count));
  }
  return shares;
}

double salient_share(const RegionCodes& linear) {
  if (linear.salient.empty()) return 0.0;
  double count = 0;
  for (const uint8_t s : linear.salient) count += s;
  return count / static_cast<double>(linear.salient.size());
}

}  // namespace billm
