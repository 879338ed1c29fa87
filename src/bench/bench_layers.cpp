// See bench_layers.h.
#include "bench_layers.h"

#include <algorithm>
#include <random>
#include <vector>

#include "billm/base/error.h"
#include "billm/base/log8.h"

namespace billm {
namespace {

struct LayerRow {
  BenchLayer layer;
  int classes, salient_classes;
  NmPattern nm;
  int integer_bits;
  bool scattered;
  int block_size;
  bool column_scales;
};

// Shares as they are found in quantized models: 8 % of the columns salient, 10 % of the weights
// scattered integers (billm inspect).
constexpr uint32_t kSalientPercent = 8, kIntegerPercent = 10;
const LayerRow kRows[] = {
    {{"signs", "--method arb --classes 1"}, 1, 0, {}, 0, false, 4096, true},
    {{"billm", "--method billm"}, 2, 2, {}, 0, false, 128, false},
    {{"arb", "--method arb"}, 2, 2, {}, 0, false, 256, true},
    {{"stbllm", "--method stbllm --nm 4:8"}, 3, 3, {4, 8}, 0, false, 128, false},
    {{"pbllm", "--method pbllm"}, 1, 0, {}, 8, true, 128, false},
    {{"gptq2", "--method gptq --bits 2"}, 0, 0, {}, 2, false, 128, false},
};

// So many rows are random, the others repeat them.
constexpr int64_t kRandomRows = 64;

const LayerRow& row_of(const std::string& name) {
  std::string names;
  for (const LayerRow& row : kRows) {
    if (name == row.layer.name) return row;
    names += std::string(names.empty() ? "" : ", ") + row.layer.name;
  }
  throw Error(ErrorCode::kUsage, "layer: expected one of " + names + ", got " + name);
}

}  // namespace

std::span<const BenchLayer> bench_layers() {
  static const std::vector<BenchLayer> layers = [] {
    std::vector<BenchLayer> result;
    for (const LayerRow& row : kRows) result.push_back(row.layer);
    return result;
  }();
  return layers;
}

RegionCodes random_bench_layer(const std::string& name, int64_t rows, int64_t cols) {
  const LayerRow& row = row_of(name);

  RegionFormat shape;
  shape.rows = rows;
  shape.cols = cols;
  shape.block_size = row.block_size;
  shape.nm = row.nm;
  shape.classes = row.classes;
  shape.salient_classes = row.salient_classes;
  shape.integer_bits = row.integer_bits;
  shape.scattered = row.scattered;
  shape.column_scales = row.column_scales;
  if (shape.all_integers()) shape.scale_format = ScaleFormat::kF16;
  std::mt19937 random(1);
  RegionCodes linear = make_region_codes(shape);
  for (uint8_t& salient : linear.salient) salient = random() % 100 < kSalientPercent;
  for (int64_t r = 0; r < std::min(rows, kRandomRows); ++r) {
    for (int64_t col = 0; col < cols; ++col) {
      const auto at = static_cast<size_t>(r * cols + col);
      if (shape.nm.active() && col % shape.nm.m >= shape.nm.n) continue;  // any N of M
      const bool salient = !linear.salient.empty() && linear.salient[static_cast<size_t>(col)] != 0;
      if (shape.integer_bits > 0 && (!shape.scattered || random() % 100 < kIntegerPercent)) {
        linear.region[at] = static_cast<uint8_t>(shape.integer_region());
        linear.code[at] = static_cast<uint8_t>(random() % (1u << shape.integer_bits));
        continue;
      }
      const int classes = salient ? shape.salient_classes : shape.classes;
      const auto t = static_cast<int>(random() % static_cast<uint32_t>(classes));
      linear.region[at] = static_cast<uint8_t>(1 + t + (salient ? shape.classes : 0));
      linear.code[at] = random() % 2;
    }
  }
  for (int64_t r = kRandomRows; r < rows; ++r) {
    const int64_t from = r % kRandomRows * cols;
    std::copy_n(linear.region.begin() + from, cols, linear.region.begin() + r * cols);
    std::copy_n(linear.code.begin() + from, cols, linear.code.begin() + r * cols);
  }
  linear.base = 1.0f;
  const auto code = [&] { return static_cast<uint8_t>(128 + random() % 64); };
  for (float& scale : linear.scale) scale = log8_decode(code(), linear.base);
  for (float& scale : linear.column_scale) scale = 1.0f;
  for (float& step : linear.step) step = 0.125f;
  for (uint8_t& zero : linear.zero) zero = static_cast<uint8_t>((1 << shape.integer_bits) / 2);
  return linear;
}

}  // namespace billm
