// See region_start.h.
#include "region_start.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "billm/base/error.h"
#include "billm/base/parallel.h"

namespace billm {
namespace {

// Logarithm of the ratio of neighbours on the log8 grid: log(2) / 16.
constexpr float kLog8Step = 0.0433217f;
// The lower border of a cell is 0.489 steps below its middle (the nearest value counts, not the
// nearest logarithm).
constexpr float kLog8Inside = 0.97f;
constexpr int64_t kTileRows = 16;

// A number in [0, 1) that depends on `index` only (SplitMix64, Steele et al. 2014).
float dither(uint64_t index) {
  uint64_t z = (index + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<float>((z ^ (z >> 31)) >> 40) * 0x1p-24f;
}

// Pruned and integer weights stay as they are.
bool frozen(const RegionFormat& format, int region) {
  return region == kPrunedRegion || region > format.regions();
}

// The classes of one row, group and column set, in units.
struct Cells {
  int classes = 0;
  std::array<float, kMaxClasses> level = {};
  std::array<float, kMaxClasses> upper = {INFINITY, INFINITY, INFINITY};  // between neighbours

  int class_of(float magnitude) const { return (magnitude > upper[0]) + (magnitude > upper[1]); }
};

class Starter {
 public:
  Starter(const RegionCodes& codes, const float* weight, double margin)
      : codes_(codes), format_(codes.shape), weight_(weight), margin_(static_cast<float>(margin)) {
    start_.latent.resize(static_cast<size_t>(format_.rows * format_.cols));
    start_.threshold.assign(codes.scale.size(), 0.0f);
    start_.unit.resize(static_cast<size_t>(format_.rows * format_.groups()));
  }

  RegionStart run(int threads) {
    parallel_parts(format_.rows, kTileRows, threads, [this](int64_t first, int64_t end) {
      for (int64_t row = first; row < end; ++row) {
        for (int64_t group = 0; group < format_.groups(); ++group) start(row, group);
      }
    });
    return std::move(start_);
  }

 private:
  float mean_scale(int64_t row, int64_t group, int64_t first, int64_t end) const {
    double sum = 0;
    int64_t kept = 0;
    for (int64_t col = first; col < end; ++col) {
      const int region = codes_.region[row * format_.cols + col];
      if (frozen(format_, region)) continue;
      sum += codes_.scale[codes_.scale_index(group, region, row)];
      ++kept;
    }
    const float unit = kept > 0 ? static_cast<float>(sum / static_cast<double>(kept)) : 0.0f;
    return unit > 0 ? unit : 1.0f;
  }

  Cells cells(int64_t row, int64_t group, bool salient, float unit) {
    Cells result;
    const int first = salient ? 1 + format_.classes : 1;
    result.classes = salient ? format_.salient_classes : format_.classes;
    for (int k = 0; k < result.classes; ++k) {
      const float level = codes_.scale[codes_.scale_index(group, first + k, row)];
      if (!(level >= (k > 0 ? codes_.scale[codes_.scale_index(group, first + k - 1, row)] : 0))) {
        throw bad_input("the scales of a packed layer do not grow from 0 within a column set",
                        "quantize the model again");
      }
      result.level[k] = level / unit;
      if (k > 0) {
        result.upper[k - 1] = 0.5f * (result.level[k - 1] + result.level[k]);
        start_.threshold[((first + k - 2) * format_.rows + row) * format_.groups() + group] =
            result.upper[k - 1];
      }
    }
    return result;
  }

  void start(int64_t row, int64_t group) {
    const int64_t first = group * format_.block_size;
    const int64_t end = std::min<int64_t>(format_.cols, first + format_.block_size);
    const float unit = mean_scale(row, group, first, end);
    start_.unit[row * format_.groups() + group] = unit;
    const Cells sets[2] = {cells(row, group, false, unit), cells(row, group, true, unit)};
    for (int64_t col = first; col < end; ++col) {
      const int64_t at = row * format_.cols + col;
      const int region = codes_.region[at];
      if (frozen(format_, region)) continue;
      const bool salient = region > format_.classes;
      const Cells& set = sets[salient];
      const int k = region - 1 - (salient ? format_.classes : 0);
      const float sign = codes_.code[at] ? 1.0f : -1.0f;
      const float scale = format_.column_scales ? codes_.column_scale[col] : 1.0f;
      const float original = weight_[at] / (unit * scale);
      // Between 0 and twice the margin.
      const float inside = 2 * dither(static_cast<uint64_t>(at)) * margin_;
      // The cell, shrunk by the margin on both sides (to its middle where it is narrower).
      float low = k == 0 ? 0.0f : set.upper[k - 1];
      float high = k + 1 < set.classes ? set.upper[k] : INFINITY;
      const float middle = 0.5f * (low + high);
      if (high - low < 2 * inside) {
        low = high = middle;
      } else {
        low += inside;
        high -= inside;
      }
      float magnitude = std::clamp(sign * original, low, high);
      // At the border itself, where the margin is 0.
      if (set.class_of(magnitude) != k) magnitude = std::isinf(middle) ? 2 * low + 1 : middle;
      start_.latent[at] = sign * magnitude;
    }
  }

  const RegionCodes& codes_;
  const RegionFormat& format_;
  const float* const weight_;
  const float margin_;
  RegionStart start_;
};

}  // namespace

RegionStart start_latents(const RegionCodes& codes, const float* weight, double margin,
                          int threads) {
  return Starter(codes, weight, margin).run(threads);
}

std::vector<int8_t> signed_classes(const RegionCodes& codes, int threads) {
  const RegionFormat& format = codes.shape;
  std::vector<int8_t> levels(codes.region.size());
  parallel_parts(format.rows, kTileRows, threads, [&](int64_t first, int64_t end) {
    for (int64_t at = first * format.cols; at < end * format.cols; ++at) {
      const int region = codes.region[at];
      int level = 1;
      if (!frozen(format, region)) {
        level = region > format.classes ? region - format.classes : region;
      }
      levels[at] = static_cast<int8_t>(codes.code[at] ? level : -level);
    }
  });
  return levels;
}

RegionCodes codes_of_levels(const RegionCodes& start, const int8_t* levels, const float* scale,
                            const std::vector<float>& column_scale, int threads) {
  RegionCodes codes = start;
  const RegionFormat& format = codes.shape;
  parallel_parts(format.rows, kTileRows, threads, [&](int64_t first, int64_t end) {
    for (int64_t row = first; row < end; ++row) {
      for (int64_t col = 0; col < format.cols; ++col) {
        const int64_t at = row * format.cols + col;
        uint8_t& region = codes.region[at];
        if (frozen(format, region)) continue;
        const int base = region > format.classes ? format.classes : 0;
        region = static_cast<uint8_t>(base + std::abs(levels[at]));
        codes.code[at] = levels[at] > 0;
      }
      for (int64_t group = 0; group < format.groups(); ++group) {
        for (int r = 1; r <= format.regions(); ++r) {
          codes.scale[codes.scale_index(group, r, row)] =
              scale[((r - 1) * format.rows + row) * format.groups() + group];
        }
      }
    }
  });
  codes.column_scale = column_scale;
  return codes;
}

std::vector<float> scale_dither(const RegionCodes& codes) {
  const RegionFormat& format = codes.shape;
  std::vector<float> result(codes.scale.size(), 0.0f);
  if (format.scale_format != ScaleFormat::kLog8) return result;
  size_t i = 0;
  for (int r = 1; r <= format.regions(); ++r) {
    for (int64_t row = 0; row < format.rows; ++row) {
      for (int64_t group = 0; group < format.groups(); ++group) {
        const auto at = static_cast<uint64_t>(codes.scale_index(group, r, row));
        result[i++] = kLog8Inside * (dither(at) - 0.5f) * kLog8Step;
      }
    }
  }
  return result;
}

std::vector<float> scales_by_region(const RegionCodes& codes) {
  const RegionFormat& format = codes.shape;
  std::vector<float> result(codes.scale.size());
  size_t i = 0;
  for (int r = 1; r <= format.regions(); ++r) {
    for (int64_t row = 0; row < format.rows; ++row) {
      for (int64_t group = 0; group < format.groups(); ++group) {
        result[i++] = codes.scale[codes.scale_index(group, r, row)];
      }
    }
  }
  return result;
}

Refusal cannot_learn(const RegionFormat& format) {
  if (format.offset_kind != OffsetKind::kNone) {
    return {"layers with offsets cannot be learned", "quantize without --offsets"};
  }
  if (format.all_integers()) {
    return {"layers of integers cannot be learned", "quantize with a binary method"};
  }
  return {};
}

}  // namespace billm
