// See latent_linear.h.
#include "latent_linear.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "billm/base/error.h"
#include "billm/base/half.h"
#include "billm/base/parallel.h"

namespace billm {
namespace {

constexpr int64_t kTileRows = 16;
constexpr double kBeta1 = 0.9, kBeta2 = 0.99;
// Logarithm of the ratio of neighbours on the log8 grid: log(2) / 16.
constexpr float kLog8Step = 0.0433217f;
constexpr float kSmallest = 1e-30f;  // of a scale before its logarithm, and of Adam's divisor

// A number in [0, 1) that depends on `index` only (SplitMix64, Steele et al. 2014).
float dither(uint64_t index) {
  uint64_t z = (index + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<float>((z ^ (z >> 31)) >> 40) * 0x1p-24f;
}

float round_scale(float scale, const RegionCodes& codes) {
  switch (codes.shape.scale_format) {
    case ScaleFormat::kLog8:
      return log8_decode(log8_encode(scale, codes.base), codes.base);
    case ScaleFormat::kF16:
      return round_to_half(scale);
    case ScaleFormat::kF32:
      return scale;
  }
  return scale;
}

}  // namespace

// The classes of one row, block and column set.
struct LatentLinear::Cells {
  int classes = 0;
  std::array<float, kMaxClasses> level = {};
  std::array<float, kMaxClasses - 1> upper = {INFINITY, INFINITY};  // between neighbours

  // Without branches: codes near a threshold are as good as random.
  int class_of(float magnitude) const { return (magnitude > upper[0]) + (magnitude > upper[1]); }
};

LatentLinear::Cells LatentLinear::cells(int64_t block, int64_t row, bool salient) const {
  Cells result;
  const RegionFormat& shape = codes_.shape;
  const int first = salient ? 1 + shape.classes : 1;
  result.classes = salient ? shape.salient_classes : shape.classes;
  for (int k = 0; k < result.classes; ++k) {
    result.level[k] = codes_.scale[codes_.scale_index(block, first + k, row)];
    if (k + 1 < result.classes) {
      result.upper[k] = threshold_[codes_.scale_index(block, first + k, row)];
    }
  }
  return result;
}

struct LatentLinear::Adam {
  float code, scale, correction1, correction2;
  // The move of one parameter, in units of its step size.
  float move(float gradient, float* mean, float* square) const {
    *mean = static_cast<float>(kBeta1) * *mean + static_cast<float>(1 - kBeta1) * gradient;
    *square =
        static_cast<float>(kBeta2) * *square + static_cast<float>(1 - kBeta2) * gradient * gradient;
    if (*square == 0) return 0;  // no gradient, or too small for fp32
    return -(*mean * correction1) / (std::sqrt(*square * correction2) + kSmallest);
  }
};

LatentLinear::LatentLinear(const RegionCodes& codes, const float* weight, double margin)
    : codes_(codes) {
  const RegionFormat& shape = codes_.shape;
  if (shape.offset_kind != OffsetKind::kNone) {
    throw Error(ErrorCode::kUsage, "layers with offsets cannot be learned",
                "quantize without --offsets");
  }
  if (shape.integer_bits > 0 && !shape.scattered) {
    throw Error(ErrorCode::kUsage, "layers of integers cannot be learned",
                "quantize with a binary method");
  }
  const auto weights = static_cast<size_t>(shape.rows * shape.cols);
  weight_ = dequantize(codes_);
  latent_.resize(weights);
  latent_moments_.resize(weights);
  scale_moments_.resize(codes_.scale.size());
  log_scale_.resize(codes_.scale.size());
  for (size_t i = 0; i < log_scale_.size(); ++i) {
    // Anywhere in the grid's cell: Adam's first steps have the same length everywhere, and scales
    // that start at the middles of their cells would all leave them in the same step.
    const float inside = shape.scale_format == ScaleFormat::kLog8 ? 0.98f * (dither(i) - 0.5f) : 0;
    log_scale_[i] = std::log(std::max(codes_.scale[i], kSmallest)) + inside * kLog8Step;
  }
  if (shape.column_scales) {
    column_moments_.resize(codes_.column_scale.size());
    for (const float c : codes_.column_scale) log_column_.push_back(std::log(c));
  }
  // Middles between the starting levels.
  threshold_.assign(codes_.scale.size(), 0.0f);
  for (size_t i = 0; i + static_cast<size_t>(shape.rows) < codes_.scale.size(); ++i) {
    threshold_[i] = 0.5f * (codes_.scale[i] + codes_.scale[i + static_cast<size_t>(shape.rows)]);
  }
  unit_.assign(static_cast<size_t>(shape.blocks() * shape.rows), 0.0f);
  for (int64_t row = 0; row < shape.rows; ++row) start_row(row, weight, margin);
}

void LatentLinear::start_row(int64_t row, const float* weight, double margin) {
  const RegionFormat& shape = codes_.shape;
  for (int64_t block = 0; block < shape.blocks(); ++block) {
    const int64_t first = block * shape.block_size;
    const int64_t end = std::min<int64_t>(shape.cols, first + shape.block_size);
    double sum = 0;
    int64_t kept = 0;
    for (int64_t col = first; col < end; ++col) {
      const int region = codes_.region[row * shape.cols + col];
      if (frozen(region)) continue;
      sum += codes_.scale[codes_.scale_index(block, region, row)];
      ++kept;
    }
    const float unit = kept > 0 ? static_cast<float>(sum / static_cast<double>(kept)) : 0.0f;
    unit_[block * shape.rows + row] = unit;
    const Cells sets[2] = {cells(block, row, false), cells(block, row, true)};
    for (const Cells& set : sets) {
      for (int k = 0; k < set.classes; ++k) {
        if (set.level[k] >= (k > 0 ? set.level[k - 1] : 0.0f)) continue;
        throw bad_input("the scales of a packed layer do not grow from 0 within a column set",
                        "quantize the model again");
      }
    }
    for (int64_t col = first; col < end; ++col) {
      const int64_t at = row * shape.cols + col;
      const int region = codes_.region[at];
      if (frozen(region)) continue;
      const bool salient = region > shape.classes;
      const Cells& set = sets[salient];
      const int k = region - 1 - (salient ? shape.classes : 0);
      const float sign = codes_.code[at] ? 1.0f : -1.0f;
      const float original = weight[at] / (shape.column_scales ? codes_.column_scale[col] : 1.0f);
      // Between 0 and twice the margin, for the same reason.
      const float inside =
          2 * dither(static_cast<uint64_t>(at)) * static_cast<float>(margin) * unit;
      // The cell, shrunk by the margin on both sides (to its middle where it is narrower).
      float low = k == 0 ? 0.0f : set.upper[k - 1];
      float high = k + 1 < set.classes ? set.upper[k] : INFINITY;
      if (high - low < 2 * inside) {
        low = high = 0.5f * (low + high);
      } else {
        low += inside;
        high -= inside;
      }
      latent_[at] = sign * std::clamp(sign * original, low, high);
    }
  }
  encode_row(row);
}

// Codes and decoded weights of a row from its latents, scales and column scales.
void LatentLinear::encode_row(int64_t row) {
  const RegionFormat& shape = codes_.shape;
  for (int64_t block = 0; block < shape.blocks(); ++block) {
    const int64_t first = block * shape.block_size;
    const int64_t end = std::min<int64_t>(shape.cols, first + shape.block_size);
    const Cells sets[2] = {cells(block, row, false), cells(block, row, true)};
    for (int64_t col = first; col < end; ++col) {
      const int64_t at = row * shape.cols + col;
      if (frozen(codes_.region[at])) {
        // Only its column's scale can have moved.
        if (shape.column_scales) weight_[at] = codes_.value(row, col);
        continue;
      }
      const bool salient = codes_.region[at] > shape.classes;
      const Cells& set = sets[salient];
      const float u = latent_[at];
      const int k = set.class_of(std::fabs(u));
      const bool plus = !std::signbit(u);
      codes_.region[at] = static_cast<uint8_t>(1 + k + (salient ? shape.classes : 0));
      codes_.code[at] = plus;
      const float level = plus ? set.level[k] : -set.level[k];
      weight_[at] = shape.column_scales ? level * codes_.column_scale[col] : level;
    }
  }
}

void LatentLinear::round_scales(int64_t block, int64_t row) {
  const RegionFormat& shape = codes_.shape;
  for (const bool salient : {false, true}) {
    const int first = salient ? 1 + shape.classes : 1;
    const int classes = salient ? shape.salient_classes : shape.classes;
    for (int k = 0; k < classes; ++k) {
      const int64_t at = codes_.scale_index(block, first + k, row);
      float scale = round_scale(std::exp(log_scale_[at]), codes_);
      if (k > 0)
        scale = std::max(scale, codes_.scale[codes_.scale_index(block, first + k - 1, row)]);
      codes_.scale[at] = scale;
    }
  }
}

void LatentLinear::step(const float* gradient, const TuneRates& rates, int threads) {
  const RegionFormat& shape = codes_.shape;
  ++steps_;
  const double n = static_cast<double>(steps_);
  const Adam adam = {static_cast<float>(rates.code), static_cast<float>(rates.scale),
                     static_cast<float>(1 / (1 - std::pow(kBeta1, n))),
                     static_cast<float>(1 / (1 - std::pow(kBeta2, n)))};
  const int64_t tiles = (shape.rows + kTileRows - 1) / kTileRows;
  const int64_t columns = shape.column_scales ? shape.cols : 0;
  std::vector<double> column_gradient(static_cast<size_t>(tiles * columns), 0.0);
  const auto for_rows = [&](const auto& body) {
    parallel_for(tiles, threads, [&](int64_t tile) {
      const int64_t end = std::min(shape.rows, (tile + 1) * kTileRows);
      for (int64_t row = tile * kTileRows; row < end; ++row) body(tile, row);
    });
  };
  if (columns == 0) {
    for_rows([&](int64_t, int64_t row) {
      step_row(row, gradient, adam, nullptr);
      encode_row(row);
    });
    return;
  }
  for_rows([&](int64_t tile, int64_t row) {
    step_row(row, gradient, adam, column_gradient.data() + tile * columns);
  });
  for (int64_t col = 0; col < columns; ++col) {
    double sum = 0;
    for (int64_t tile = 0; tile < tiles; ++tile) sum += column_gradient[tile * columns + col];
    log_column_[col] += adam.scale * adam.move(static_cast<float>(sum), &column_moments_.mean[col],
                                               &column_moments_.square[col]);
    const float rounded = round_to_half(std::exp(log_column_[col]));
    if (rounded > 0 && std::isfinite(rounded)) codes_.column_scale[col] = rounded;
  }
  for_rows([&](int64_t, int64_t row) { encode_row(row); });
}

void LatentLinear::step_row(int64_t row, const float* gradient, const Adam& adam,
                            double* column_gradient) {
  const RegionFormat& shape = codes_.shape;
  std::array<double, 2 * kMaxClasses + 1> scale_gradient;
  for (int64_t block = 0; block < shape.blocks(); ++block) {
    const int64_t first = block * shape.block_size;
    const int64_t end = std::min<int64_t>(shape.cols, first + shape.block_size);
    const float unit = unit_[block * shape.rows + row];
    scale_gradient.fill(0);
    float largest = 0;  // latents stay within reach of their levels
    for (int r = 1; r <= shape.regions(); ++r) {
      largest = std::max(largest, codes_.scale[codes_.scale_index(block, r, row)]);
    }
    const float bound = largest + unit;
    for (int64_t col = first; col < end; ++col) {
      const int64_t at = row * shape.cols + col;
      const int region = codes_.region[at];
      const float g = gradient[at];
      const double of_logarithm = static_cast<double>(g) * weight_[at];
      if (column_gradient != nullptr) column_gradient[col] += of_logarithm;  // integers, too
      if (frozen(region)) continue;
      scale_gradient[region] += of_logarithm;
      const float move = adam.move(g, &latent_moments_.mean[at], &latent_moments_.square[at]);
      latent_[at] = std::clamp(latent_[at] + adam.code * unit * move, -bound, bound);
    }
    for (int r = 1; r <= shape.regions(); ++r) {
      const int64_t at = codes_.scale_index(block, r, row);
      if (scale_gradient[r] == 0 && scale_moments_.square[at] == 0) continue;  // never used
      log_scale_[at] +=
          adam.scale * adam.move(static_cast<float>(scale_gradient[r]), &scale_moments_.mean[at],
                                 &scale_moments_.square[at]);
    }
    if (adam.scale != 0) round_scales(block, row);
  }
}

}  // namespace billm
