// See random_layer.h.
#include "support/random_layer.h"

#include <algorithm>

namespace billm::test {
namespace {

void keep_some(Random* random, int columns, int kept, uint8_t* keep) {
  std::fill(keep, keep + columns, uint8_t{0});
  while (kept > 0) {
    uint8_t& chosen = keep[random->below(static_cast<uint32_t>(columns))];
    if (chosen == 0) --kept;
    chosen = 1;
  }
}

float random_exact(Random* random, ScaleFormat format, float base) {
  switch (format) {
    case ScaleFormat::kLog8:
      return log8_decode(static_cast<uint8_t>(random->below(256)), base);
    case ScaleFormat::kF16:
      return round_to_half(random->normal());
    case ScaleFormat::kF32:
      return random->normal();
  }
  return 0;
}

void fill_offsets(Random* random, RegionCodes* linear) {
  const RegionFormat& shape = linear->shape;
  if (shape.offset_kind == OffsetKind::kNone) return;
  for (int64_t group = 0; group < shape.groups(); ++group) {
    for (int64_t row = 0; row < shape.rows; ++row) {
      float largest = 0;
      for (int r = 1; r <= shape.regions(); ++r) {
        largest = std::max(largest, linear->scale[linear->scale_index(group, r, row)]);
      }
      for (int r = 1; r <= shape.regions(); ++r) {
        const int drawn = static_cast<int>(random->below(255)) - 127;
        const int code = largest > 0 ? drawn : 0;  // in units of 0 only 0 can be said, and not -0
        linear->offset[linear->offset_index(group, r, row)] =
            shape.scale_format == ScaleFormat::kLog8
                ? offset8_decode(static_cast<int8_t>(code), largest)
                : random_exact(random, shape.scale_format, 0);
      }
    }
  }
}

}  // namespace

float Random::normal() {
  float sum = -6;
  for (int i = 0; i < 12; ++i) sum += uniform();
  return sum;
}

std::vector<float> random_normal(int64_t count, uint32_t seed, float scale) {
  Random random(seed);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = scale * random.normal();
  return values;
}

RegionCodes random_codes(const RegionFormat& shape, uint32_t seed) {
  Random random(seed);
  RegionCodes linear = make_region_codes(shape);
  for (uint8_t& salient : linear.salient) salient = random.below(4) == 0;
  const int group = shape.nm.active() ? shape.nm.m : 1;
  const auto integer_codes = static_cast<uint32_t>(1 << shape.integer_bits);
  // Percent of scattered integers: none, all, and what the gaps of an index are good for or not.
  constexpr uint32_t kShares[] = {10, 0, 50, 2, 30, 100, 5, 20};
  const uint32_t share = kShares[seed % 8];
  std::vector<uint8_t> keep(static_cast<size_t>(group), 1);
  for (int64_t row = 0; row < shape.rows; ++row) {
    for (int64_t col = 0; col < shape.cols; ++col) {
      if (shape.nm.active() && col % group == 0) {
        const int columns = static_cast<int>(std::min<int64_t>(group, shape.cols - col));
        keep_some(&random, columns, shape.nm.kept(columns), keep.data());
      }
      if (keep[static_cast<size_t>(col % group)] == 0) continue;
      const bool salient = !linear.salient.empty() && linear.salient[col] != 0;
      const int classes = salient ? shape.salient_classes : shape.classes;
      if (shape.integer_bits > 0 && (!shape.scattered || random.below(100) < share)) {
        linear.region[row * shape.cols + col] = static_cast<uint8_t>(shape.integer_region());
        linear.code[row * shape.cols + col] = static_cast<uint8_t>(random.below(integer_codes));
        continue;
      }
      const int t = static_cast<int>(random.below(static_cast<uint32_t>(classes)));
      linear.region[row * shape.cols + col] =
          static_cast<uint8_t>(1 + t + (salient ? shape.classes : 0));
      linear.code[row * shape.cols + col] = static_cast<uint8_t>(random.below(2));
    }
  }
  if (shape.scale_format == ScaleFormat::kLog8) linear.base = 0.25f + random.uniform();
  for (float& scale : linear.scale) {
    scale = random_exact(&random, shape.scale_format, linear.base);
  }
  fill_offsets(&random, &linear);
  for (float& scale : linear.column_scale) scale = round_to_half(0.5f + random.uniform());
  for (float& step : linear.step) step = round_to_half(0.01f + random.uniform());
  for (uint8_t& zero : linear.zero) zero = static_cast<uint8_t>(random.below(integer_codes));
  return linear;
}

TrellisCodes random_trellis(int64_t rows, int64_t cols, const std::vector<int>& rates,
                            uint32_t seed) {
  Random random(seed);
  TrellisCodes codes = make_trellis_codes({rows, cols, rates});
  const int64_t segment = codes.format.segment_rows();
  for (size_t p = 0; p < rates.size(); ++p) {
    for (size_t at = 0; at < codes.states[p].size(); ++at) {
      const bool starts = static_cast<int64_t>(at) % rows % segment == 0;
      const uint32_t before = starts ? random.below(256) : codes.states[p][at - 1];
      codes.states[p][at] = static_cast<uint8_t>(before << rates[p] | random.below(1u << rates[p]));
    }
  }
  for (float& scale : codes.scale) scale = round_to_half(0.01f + random.uniform());
  if (rows > 1) codes.scale[1] = 0;
  return codes;
}

CalibrationStats correlated_stats(int64_t width, int64_t tokens, uint32_t seed) {
  constexpr int64_t kDirections = 8;
  const std::vector<float> mix = random_normal(kDirections * width, seed);
  Random random(seed + 1);
  CalibrationStats stats;
  stats.width = width;
  stats.tokens = tokens;
  std::vector<double> xtx(static_cast<size_t>(width * width), 0.0);
  std::vector<double> x(static_cast<size_t>(width));
  for (int64_t token = 0; token < tokens; ++token) {
    for (double& value : x) value = random.normal();
    for (int64_t k = 0; k < kDirections; ++k) {
      const double z = random.normal();
      for (int64_t j = 0; j < width; ++j) x[j] += z * mix[k * width + j];
    }
    for (int64_t i = 0; i < width; ++i) {
      for (int64_t j = 0; j <= i; ++j) xtx[i * width + j] += x[i] * x[j];
    }
  }
  stats.xtx.resize(xtx.size());
  for (int64_t i = 0; i < width; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      stats.xtx[i * width + j] = stats.xtx[j * width + i] = static_cast<float>(xtx[i * width + j]);
    }
  }
  return stats;
}

double layer_error(const std::vector<float>& w, const std::vector<float>& q,
                   const std::vector<float>& hessian, double lambda, int64_t width) {
  double error = 0;
  std::vector<double> d(static_cast<size_t>(width));
  for (size_t first = 0; first < w.size(); first += d.size()) {
    for (size_t j = 0; j < d.size(); ++j) d[j] = double{w[first + j]} - q[first + j];
    for (size_t i = 0; i < d.size(); ++i) {
      if (d[i] == 0) continue;
      const float* row = hessian.data() + i * d.size();
      double sum = lambda * d[i];
      for (size_t j = 0; j < d.size(); ++j) sum += d[j] * row[j];
      error += d[i] * sum;
    }
  }
  return error / 2;
}

std::string text_of(const RegionFormat& shape) {
  return "rows " + std::to_string(shape.rows) + " cols " + std::to_string(shape.cols) + " block " +
         std::to_string(shape.block_size) + " " + shape.nm.text() + " K " +
         std::to_string(shape.classes) + " S " + std::to_string(shape.salient_classes) + " " +
         scale_format_name(shape.scale_format) + " offsets " + offset_kind_name(shape.offset_kind) +
         (shape.column_scales ? " column scales" : "") + (shape.scattered ? " scattered" : "") +
         (shape.integer_bits > 0 ? " integers " + std::to_string(shape.integer_bits) : "");
}

namespace {

// A layer's kind: classes, column scales, integers.
struct Kind {
  int classes, salient_classes;
  bool column_scales;
  int integer_bits;
  bool scattered;
};
constexpr Kind kKinds[] = {
    {2, 2, true, 0, false},  {1, 0, true, 0, false},  {1, 2, false, 0, false},
    {1, 3, false, 0, false}, {1, 3, true, 0, false},  {0, 0, false, 2, false},
    {0, 0, false, 3, false}, {0, 0, false, 4, false}, {0, 0, false, 5, false},
    {0, 0, false, 8, false}, {1, 0, false, 8, true},  {1, 0, false, 3, true},
    {2, 1, false, 8, true},  {3, 3, true, 5, true},   {1, 1, true, 2, true},
};

}  // namespace

std::vector<RegionFormat> shape_sweep_of_kinds(int every) {
  constexpr ScaleFormat kFormats[] = {ScaleFormat::kLog8, ScaleFormat::kF16, ScaleFormat::kF32};
  constexpr OffsetKind kOffsets[] = {OffsetKind::kNone, OffsetKind::kBlock, OffsetKind::kRegion};
  std::vector<RegionFormat> shapes;
  int turn = 0;
  for (const int64_t rows : {1, 3, 65}) {
    for (const int64_t cols : {1, 7, 130, 576}) {
      for (const Kind& kind : kKinds) {
        for (const int block_size : {128, 16}) {
          if (turn++ % every != 0) continue;
          RegionFormat shape;
          shape.rows = rows;
          shape.cols = cols;
          shape.block_size = block_size;
          shape.classes = kind.classes;
          shape.salient_classes = kind.salient_classes;
          shape.column_scales = kind.column_scales;
          shape.integer_bits = kind.integer_bits;
          shape.scattered = kind.scattered;
          const size_t i = shapes.size();
          shape.scale_format = shape.all_integers() ? ScaleFormat::kF16 : kFormats[i % 3];
          shape.offset_kind = shape.all_integers() ? OffsetKind::kNone : kOffsets[i / 3 % 3];
          shapes.push_back(shape);
        }
      }
    }
  }
  return shapes;
}

std::vector<RegionFormat> shape_sweep(int every) {
  constexpr int kClasses[][2] = {{1, 0}, {1, 1}, {2, 0}, {2, 1}, {2, 2},
                                 {3, 0}, {3, 1}, {3, 2}, {3, 3}};
  constexpr NmPattern kPatterns[] = {{0, 0}, {4, 8}, {2, 4}, {5, 8}, {8, 8}, {3, 16}};
  constexpr ScaleFormat kFormats[] = {ScaleFormat::kLog8, ScaleFormat::kF16, ScaleFormat::kF32};
  constexpr OffsetKind kOffsets[] = {OffsetKind::kNone, OffsetKind::kBlock, OffsetKind::kRegion};
  std::vector<RegionFormat> shapes;
  int turn = 0;
  for (const int64_t rows : {1, 2, 3, 4, 5, 64, 65}) {
    for (const int64_t cols : {1, 7, 8, 130, 576}) {
      for (const auto& [classes, salient] : kClasses) {
        for (const NmPattern& nm : kPatterns) {
          if (turn++ % every != 0) continue;
          RegionFormat shape;
          shape.rows = rows;
          shape.cols = cols;
          shape.nm = nm;
          shape.classes = classes;
          shape.salient_classes = salient;
          const size_t i = shapes.size();
          shape.scale_format = kFormats[i % 3];
          shape.offset_kind = kOffsets[i / 3 % 3];
          shape.block_size = i % 2 == 0 ? 128 : 16;
          shapes.push_back(shape);
        }
      }
    }
  }
  return shapes;
}

}  // namespace billm::test
