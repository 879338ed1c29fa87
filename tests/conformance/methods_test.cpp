// What every row of the method table must do, whatever the shape, the settings and the machine.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "billm/pack/packed_layer.h"
#include "billm/quantize/allocate_bits.h"
#include "conformance/method_testing.h"
#include "kernels/cpu/row_tiles.h"
#include "support/compare.h"

namespace billm::test {
namespace {

// Consistent, finite, strict, and the packed bytes decode to the same weights.
void expect_sound(const LayerCodes& linear, const Layer& layer, const MethodConfig& config) {
  ASSERT_NO_THROW(check_codes(linear));
  ASSERT_EQ(linear.rows(), layer.rows);
  ASSERT_EQ(linear.cols(), layer.cols);
  const std::vector<float> q = dequantize(linear);
  for (const float value : q) ASSERT_TRUE(std::isfinite(value));
  const PackedLayer packed = pack(linear);
  ASSERT_NO_THROW(check_packed(packed, "packed"));
  std::vector<float> decoded(q.size());
  decode(packed, 1, decoded.data());
  ASSERT_TRUE(close(decoded, q));
  const Method& method = find_method(config.method);
  if (method.rate_bits != nullptr && config.bits >= rates_of(config).front()) {
    EXPECT_NEAR(packed.stored_bits(), method.rate_bits({layer.rows, layer.cols}, config), 1e-12);
  }
  if (!config.nm.active()) return;
  const RegionCodes& regions = linear.regions();
  ASSERT_TRUE(regions.shape.nm == config.nm);
  for (int64_t row = 0; row < layer.rows; ++row) {
    for (int64_t first = 0; first < layer.cols; first += config.nm.m) {
      const int64_t end = std::min<int64_t>(layer.cols, first + config.nm.m);
      int kept = 0;
      for (int64_t col = first; col < end; ++col) {
        const size_t at = static_cast<size_t>(row * layer.cols + col);
        kept += regions.region[at] != kPrunedRegion;
        if (regions.region[at] == kPrunedRegion) {
          ASSERT_EQ(decoded[at], 0.0f);
        }
      }
      ASSERT_EQ(kept, config.nm.kept(end - first));
    }
  }
}

TEST(EveryMethod, EveryShapeAndSetting) {
  constexpr int64_t kShapes[][2] = {{1, 40}, {5, 1}, {1, 1}, {3, 130}, {576, 64}, {65, 200}};
  for (const auto& [rows, cols] : kShapes) {
    for (const uint32_t seed : {1u, 2u}) {
      if (rows > 100 && seed == 2) continue;
      const Layer layer(rows, cols, seed);
      for (const Method& method : methods()) {
        for (const Variant& variant : variants(method)) {
          SCOPED_TRACE(std::string(method.name) + ", " + variant.name + ", " +
                       std::to_string(rows) + " x " + std::to_string(cols));
          ASSERT_NO_THROW(check_config(variant.config));
          const LayerCodes linear =
              method.quantize(layer.view(), layer.hessian, variant.config, {});
          expect_sound(linear, layer, variant.config);
          if (HasFatalFailure()) return;
          const double nominal = method.nominal_bits(linear);
          EXPECT_GT(nominal, 0);
          if (linear.only_regions() == nullptr) continue;  // small layers: their smallest rank
          EXPECT_LE(nominal, uses(method, "salient") || uses(method, "bits") ? 8 : 2);
        }
      }
    }
  }
}

TEST(EveryMethod, DegenerateWeightsAndInputs) {
  constexpr int64_t kRows = 3, kCols = 70;
  const CalibrationStats stats = correlated_stats(kCols, 200, 5);
  CalibrationStats dead = stats, none = stats;
  for (int64_t i = 0; i < kCols; ++i) {
    for (const int64_t col : {0, 33, 69}) {
      dead.xtx[i * kCols + col] = dead.xtx[col * kCols + i] = 0;
    }
  }
  std::fill(none.xtx.begin(), none.xtx.end(), 0.0f);
  const std::vector<float> random = random_normal(kRows * kCols, 6);
  std::vector<std::pair<std::string, std::vector<float>>> weights;
  const auto add = [&](const std::string& name, auto value) {
    std::vector<float> w(random.size());
    for (size_t i = 0; i < w.size(); ++i) w[i] = value(i);
    weights.emplace_back(name, w);
  };
  add("random", [&](size_t i) { return random[i]; });
  add("zeros", [](size_t) { return 0.0f; });
  add("minus zeros", [](size_t) { return -0.0f; });
  add("one weight", [](size_t i) { return i == 71 ? 1.0f : 0.0f; });
  add("all equal", [](size_t) { return -0.5f; });
  add("tiny", [&](size_t i) { return random[i] * 1e-30f; });
  add("large", [&](size_t i) { return random[i] * 1e4f; });
  add("one row of zeros", [&](size_t i) { return i < kCols ? 0.0f : random[i]; });
  for (const auto& [name, w] : weights) {
    for (const CalibrationStats& inputs : {stats, dead, none}) {
      const Layer layer(w, kRows, kCols, inputs);
      for (const Method& method : methods()) {
        for (const Variant& variant : variants(method)) {
          SCOPED_TRACE(std::string(method.name) + ", " + variant.name + ", " + name);
          expect_sound(method.quantize(layer.view(), layer.hessian, variant.config, {}), layer,
                       variant.config);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

std::vector<std::byte> all_bytes(const PackedLayer& packed) {
  std::vector<std::byte> bytes;
  for_each_plane(packed, [&](const std::string&, const Plane& plane) {
    bytes.insert(bytes.end(), plane.bytes.begin(), plane.bytes.end());
  });
  return bytes;
}

TEST(EveryMethod, SameBytesForThreadsAndTargets) {
  const int64_t targets = kernels::supported_targets();
  constexpr int64_t kShapes[][2] = {{3, 130}, {65, 200}};
  for (const auto& [rows, cols] : kShapes) {
    const Layer layer(rows, cols, 8);
    for (const Method& method : methods()) {
      std::vector<Variant> all = variants(method);
      if (rows > 64) all.erase(all.begin() + 1, all.end() - 1);  // the first and the last: enough
      for (const Variant& variant : all) {
        SCOPED_TRACE(std::string(method.name) + ", " + variant.name);
        const std::vector<std::byte> first =
            all_bytes(pack(method.quantize(layer.view(), layer.hessian, variant.config, {})));
        int threads = 0;
        for (int bit = 0; bit < 63; ++bit) {
          const int64_t target = int64_t{1} << bit;
          if ((targets & target) == 0) continue;
          kernels::force_target(target);
          const QuantizeContext context = {.threads = 1 + threads++ % 3};
          const MethodConfig& config = variant.config;
          const Hessian hessian = make_hessian(layer.stats, true, config.damping, context.threads);
          const std::vector<std::byte> bytes =
              all_bytes(pack(method.quantize(layer.view(), hessian, config, context)));
          const std::vector<std::byte> expected =
              method.same_on_every_cpu
                  ? first
                  : all_bytes(pack(method.quantize(layer.view(), layer.hessian, config, {})));
          kernels::force_target(0);
          EXPECT_EQ(bytes, expected) << "target " << target << ", threads " << context.threads;
        }
        for (const int count : {2, 3}) {
          EXPECT_EQ(all_bytes(pack(method.quantize(layer.view(), layer.hessian, variant.config,
                                                   {.threads = count}))),
                    first)
              << "threads " << count;
        }
      }
    }
  }
}

// Largest integers of the method; 0: it makes none.
int most_bits(const Method& method) {
  const Range range = range_of(find_setting("bits"), method);
  return uses(method, "bits") && range.whole ? static_cast<int>(range.high) : 0;
}

// Whether a value is a sign times a scale of a chosen format.
bool makes_signs(const Method& method) {
  return integer_bits(MethodConfig(method.name)) <= 1 && uses(method, "scale_format");
}

// A weight that the method can say exactly: per row and group `levels` magnitudes on the log8 grid
// (and exact in fp16), zeros where the mask prunes.
std::vector<float> representable(int64_t rows, int64_t cols, int levels, const MethodConfig& config,
                                 uint32_t seed) {
  Random random(seed);
  std::vector<float> w(static_cast<size_t>(rows * cols), 0.0f);
  const int group = config.nm.active() ? config.nm.m : 1;
  for (int64_t row = 0; row < rows; ++row) {
    float level[2] = {};
    for (int64_t col = 0; col < cols; ++col) {
      if (col % config.block_size == 0) {
        // Powers of two are on every grid; the largest weight of the layer must be 1.
        level[0] = std::exp2(-1.0f - static_cast<float>(random.below(3)));
        level[1] = levels == 1 ? level[0] : 2 * level[0];
        if (row == 0 && col == 0) level[0] = level[1] = 1.0f;
      }
      const int64_t start = col / group * group;
      const int kept =
          config.nm.active() ? config.nm.kept(std::min<int64_t>(group, cols - start)) : group;
      if (col - start >= kept) continue;
      const float magnitude = level[random.below(2)];
      w[static_cast<size_t>(row * cols + col)] = random.below(2) != 0 ? magnitude : -magnitude;
    }
  }
  return w;
}

TEST(EveryMethod, RepresentableWeightsComeBack) {
  for (const Method& method : methods()) {
    if (!makes_signs(method)) continue;  // below: integers have grids of their own
    for (const ScaleFormat format : {ScaleFormat::kLog8, ScaleFormat::kF16, ScaleFormat::kF32}) {
      for (const int64_t cols : {64, 200}) {
        SCOPED_TRACE(std::string(method.name) + ", " + scale_format_name(format));
        MethodConfig config = config_of(method);
        config.scale_format = format;
        const int classes =
            method.quantize(Layer(2, 16, 1).view(), Layer(2, 16, 1).hessian, config, {})
                .regions()
                .shape.classes;
        const std::vector<float> w = representable(70, cols, std::min(classes, 2), config, 9);
        const Layer layer(w, 70, cols, correlated_stats(cols, 500, 10));
        const std::vector<float> q =
            dequantize(method.quantize(layer.view(), layer.hessian, config, {}));
        // The 8-bit grid of scattered integers spans 2.5 times the row's largest weight, 1 at most:
        // half a step is 0.005, and an integer takes up the errors of those before it.
        const double grid = uses(method, "salient") ? 0.012 : 0.0;
        EXPECT_TRUE(close(q, w, {.absolute = 1e-6 + grid, .relative = 1e-5 + grid}));
      }
    }
  }
}

// Weights on a grid of integers whose step is a power of two, with both of its ends in each group.
TEST(EveryMethod, RepresentableIntegersComeBack) {
  constexpr int64_t kRows = 70;
  for (const Method& method : methods()) {
    for (int bits = 2; bits <= most_bits(method); ++bits) {
      for (const int64_t cols : {64, 200}) {
        SCOPED_TRACE(std::string(method.name) + ", " + std::to_string(bits) + " bits");
        MethodConfig config = config_of(method);
        config.bits = bits;
        Random random(static_cast<uint32_t>(bits));
        std::vector<float> w;
        for (int64_t row = 0; row < kRows; ++row) {
          int last = 0, zero = 0;
          float step = 0;
          for (int64_t col = 0; col < cols; ++col) {
            if (col % config.block_size == 0) {
              last = (1 << bits) - 1;
              zero = static_cast<int>(random.below(static_cast<uint32_t>(last + 1)));
              step = std::exp2(-1.0f - static_cast<float>(random.below(5)));
            }
            const int64_t place = col % config.block_size;
            const int code = place == 3 ? 0
                             : place == 7
                                 ? last
                                 : static_cast<int>(random.below(static_cast<uint32_t>(last + 1)));
            w.push_back(static_cast<float>(code - zero) * step);
          }
        }
        const Layer layer(w, kRows, cols, correlated_stats(cols, 500, 10));
        for (const bool act_order : {true, false}) {
          if (!act_order && !uses(method, "act_order")) continue;
          config.act_order = act_order;
          EXPECT_TRUE(
              close(dequantize(method.quantize(layer.view(), layer.hessian, config, {})), w));
        }
      }
    }
  }
}

// Off the grid, a weight comes back within the precision of its scale: 2^(1/32) for log8. The
// inputs are independent, so that no feedback moves the weights.
TEST(EveryMethod, ScalePrecision) {
  constexpr int64_t kRows = 70, kCols = 96;
  CalibrationStats stats;
  stats.width = kCols;
  stats.tokens = 2;
  stats.xtx.assign(kCols * kCols, 0.0f);
  for (int64_t i = 0; i < kCols; ++i) {
    stats.xtx[i * kCols + i] = 1.0f + static_cast<float>(i % 5);
  }
  for (const Method& method : methods()) {
    if (!makes_signs(method)) continue;  // an integer is as precise as its grid, not as its scale
    SCOPED_TRACE(method.name);
    MethodConfig config = config_of(method);
    std::vector<float> w = representable(kRows, kCols, 1, config, 11);
    // Half a step of 8 bits over 2.5 times the row's magnitude.
    const double grid = uses(method, "salient") ? 0.005 : 0.0;
    Random random(12);
    for (int64_t row = 0; row < kRows; ++row) {
      const float factor = 0.5f + random.uniform();
      for (int64_t col = 0; col < kCols; ++col) w[row * kCols + col] *= factor;
    }
    const Layer layer(w, kRows, kCols, stats);
    const auto quantized = [&](ScaleFormat format) {
      config.scale_format = format;
      return dequantize(method.quantize(layer.view(), layer.hessian, config, {}));
    };
    EXPECT_TRUE(close(quantized(ScaleFormat::kLog8), w, {.relative = 0.0222}));
    EXPECT_TRUE(close(quantized(ScaleFormat::kF16), w, {.relative = 0x1p-11 + 1e-6 + grid}));
    EXPECT_TRUE(close(quantized(ScaleFormat::kF32), w, {.relative = 1e-6 + grid}));
  }
}

}  // namespace
}  // namespace billm::test
