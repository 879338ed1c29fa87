// How good the methods are on seeded random layers with correlated inputs: never worse than plain
// signs, and better with refinement.
#include <gtest/gtest.h>

#include <cmath>

#include "conformance/method_testing.h"

namespace billm::test {
namespace {

constexpr int kLayers = 40;

Layer random_layer(int index) {
  constexpr int64_t kShapes[][2] = {{40, 200}, {70, 130}, {33, 64}, {16, 256}};
  const auto& [rows, cols] = kShapes[index % 4];
  return Layer(rows, cols, static_cast<uint32_t>(100 + 10 * index));
}

// Plain sign binarization of the weights that `keep` has: per row and group the sign and mean |w|.
std::vector<float> plain_signs(const Layer& layer, const std::vector<uint8_t>& region,
                               int block_size) {
  std::vector<float> q(layer.w.size(), 0.0f);
  for (int64_t row = 0; row < layer.rows; ++row) {
    for (int64_t first = 0; first < layer.cols; first += block_size) {
      const int64_t end = std::min<int64_t>(layer.cols, first + block_size);
      double sum = 0;
      int kept = 0;
      for (int64_t at = row * layer.cols + first; at < row * layer.cols + end; ++at) {
        if (region[static_cast<size_t>(at)] == kPrunedRegion) continue;
        sum += std::fabs(layer.w[static_cast<size_t>(at)]);
        ++kept;
      }
      for (int64_t at = row * layer.cols + first; at < row * layer.cols + end; ++at) {
        if (region[static_cast<size_t>(at)] == kPrunedRegion) continue;
        q[static_cast<size_t>(at)] =
            std::copysign(static_cast<float>(sum / kept), layer.w[static_cast<size_t>(at)]);
      }
    }
  }
  return q;
}

TEST(MethodError, NotAbovePlainSignsWithTheSameMask) {
  for (const Method& method : methods()) {
    if (!method.needs_factor || !uses(method, "block_size")) continue;  // no groups: dbf_test.cpp
    int better = 0;
    double logs = 0;
    for (int i = 0; i < kLayers; ++i) {
      const Layer layer = random_layer(i);
      const MethodConfig config = config_of(method);
      const RegionCodes linear = method.quantize(layer.view(), layer.hessian, config, {}).regions();
      const double ratio =
          layer.error(linear) / layer.error(plain_signs(layer, linear.region, config.block_size));
      better += ratio <= 1;
      logs += std::log(ratio);
    }
    EXPECT_GE(better, kLayers * 95 / 100) << method.name;
    EXPECT_LT(std::exp(logs / kLayers), 0.5) << method.name;
  }
}

TEST(MethodError, SignsAreTheRtnMethod) {
  for (int i = 0; i < 4; ++i) {
    const Layer layer = random_layer(i);
    const Method& rtn = find_method("rtn");
    const RegionCodes linear =
        rtn.quantize(layer.view(), layer.hessian, config_of(rtn), {}).regions();
    const double plain = layer.error(plain_signs(layer, linear.region, 128));
    EXPECT_NEAR(layer.error(linear), plain, 0.02 * plain);
  }
}

// Greedy from group to group, so a layer may lose a little.
TEST(MethodError, RefinementHelps) {
  for (const Method& method : methods()) {
    if (!uses(method, "refine_rounds")) continue;
    double logs = 0;
    for (int i = 0; i < kLayers; ++i) {
      const Layer layer = random_layer(i);
      MethodConfig config = config_of(method);
      const double refined = layer.error(method.quantize(layer.view(), layer.hessian, config, {}));
      config.refine_rounds = 0;
      const double plain = layer.error(method.quantize(layer.view(), layer.hessian, config, {}));
      EXPECT_LE(refined, 1.02 * plain) << method.name << ", layer " << i;
      logs += std::log(refined / plain);
    }
    EXPECT_LT(std::exp(logs / kLayers), 0.95) << method.name;
  }
}

TEST(MethodError, FeedbackHelps) {
  for (const Method& method : methods()) {
    if (!uses(method, "refine_rounds")) continue;
    double logs = 0;
    for (int i = 0; i < kLayers; ++i) {
      const Layer layer = random_layer(i);
      MethodConfig config = config_of(method);
      const double with = layer.error(method.quantize(layer.view(), layer.hessian, config, {}));
      config.feedback = Feedback::kNone;
      logs +=
          std::log(with / layer.error(method.quantize(layer.view(), layer.hessian, config, {})));
    }
    EXPECT_LT(std::exp(logs / kLayers), 0.8) << method.name;
  }
}

// GPTQ's feedback in both orders against rounding the same bits, and more bits against fewer. (What
// the order is worth depends on the layer: golden_test.cpp.)
TEST(MethodError, IntegersWithFeedback) {
  const Method& gptq = find_method("gptq");
  const Method& rtn = find_method("rtn");
  double last = INFINITY;
  for (const int bits : {2, 3, 4}) {
    double rounded = 0, plain = 0, ordered = 0;
    for (int i = 0; i < kLayers; ++i) {
      const Layer layer = random_layer(i);
      MethodConfig config = config_of(gptq);
      config.bits = bits;
      const double with = layer.error(gptq.quantize(layer.view(), layer.hessian, config, {}));
      config.act_order = false;
      const double without = layer.error(gptq.quantize(layer.view(), layer.hessian, config, {}));
      config = config_of(rtn);
      config.bits = bits;
      const double none = layer.error(rtn.quantize(layer.view(), layer.hessian, config, {}));
      EXPECT_LT(with, none) << "layer " << i;
      rounded += std::log(none);
      plain += std::log(without);
      ordered += std::log(with);
    }
    EXPECT_LT(std::exp((plain - rounded) / kLayers), 0.6) << bits;
    EXPECT_LT(std::exp((ordered - rounded) / kLayers), 0.6) << bits;
    EXPECT_LT(ordered, last) << bits;
    last = ordered;
  }
}

// More salient weights, smaller error. (The metrics are compared on a real layer: golden_test.cpp.)
TEST(MethodError, SalientShare) {
  const Method& method = find_method("pbllm");
  double last = INFINITY;
  for (const double share : {0.02, 0.1, 0.3}) {
    double logs = 0;
    for (int i = 0; i < kLayers; ++i) {
      const Layer layer = random_layer(i);
      MethodConfig config = config_of(method);
      config.salient_share = share;
      const RegionCodes linear = method.quantize(layer.view(), layer.hessian, config, {}).regions();
      EXPECT_NEAR(region_shares(linear).back(), share, 0.001);
      EXPECT_NEAR(method.nominal_bits(linear), 1 + 7 * share, 0.007);
      logs += std::log(layer.error(linear));
    }
    EXPECT_LT(logs, last);
    last = logs;
  }
}

}  // namespace
}  // namespace billm::test
