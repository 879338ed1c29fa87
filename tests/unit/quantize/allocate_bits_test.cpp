// Rates by gain: against every allocation of a few layers, and what is refused.
#include "billm/quantize/allocate_bits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "billm/base/error.h"
#include "billm/quantize/methods.h"
#include "billm/quantize/settings.h"

namespace billm {
namespace {

double used(const std::vector<RatedLayer>& layers, const std::map<std::string, double>& rates) {
  double bits = 0;
  for (const RatedLayer& layer : layers) {
    MethodConfig config = layer.config;
    config.bits = rates.at(layer.module);
    bits += static_cast<double>(layer.rows * layer.cols) *
            find_method(config.method).rate_bits({layer.rows, layer.cols}, config);
  }
  return bits;
}

double left(const std::vector<RatedLayer>& layers, const std::map<std::string, double>& rates) {
  double loss = 0;
  for (const RatedLayer& layer : layers) {
    loss += std::sqrt(static_cast<double>(layer.rows * layer.cols) * layer.gain) *
            std::pow(kErrorOfABit, rates.at(layer.module) - layer.config.bits);
  }
  return loss;
}

TEST(Rates, OfTheRange) {
  EXPECT_EQ(rates_of(configure("gptq", {})), (std::vector<double>{2, 3, 4}));
  EXPECT_EQ(rates_of(configure("rtn", {})), (std::vector<double>{2, 3, 4}));
  const std::vector<double> trellis = rates_of(configure("trellis", {}));
  ASSERT_EQ(trellis.size(), 12u);
  EXPECT_EQ(trellis.front(), 0.25);
  EXPECT_EQ(trellis.back(), 3);
  EXPECT_EQ(rates_of(configure("dbf", {})).size(), 21u);
  EXPECT_THROW(rates_of(configure("billm", {})), Error);
}

TEST(Rates, BaseIsTheHighestThatIsNotAbove) {
  const MethodConfig trellis = configure("trellis", {});
  EXPECT_EQ(base_rate(trellis, 1.3), 1.25);
  EXPECT_EQ(base_rate(trellis, 1.25), 1.25);
  EXPECT_EQ(base_rate(trellis, 0.25), 0.25);
  EXPECT_EQ(base_rate(trellis, 3.02), 3);
  for (const double target : {0.2, -1.0, 4.5, double(NAN)}) {
    EXPECT_THROW(base_rate(trellis, target), Error) << target;
  }
}

TEST(AllocateBits, FillsTheBudgetAndGivesToTheGain) {
  const MethodConfig base = configure("trellis", {{"bits", 1.25}});
  const std::vector<RatedLayer> layers = {
      RatedLayer{"a", 512, 64, base, 0.2}, RatedLayer{"b", 512, 64, base, 0.4},
      RatedLayer{"c", 512, 192, base, 0.1}, RatedLayer{"d", 192, 64, base, -0.1}};
  const double weights = 512 * 320 + 192 * 64, budget = 1.6 * weights;
  const auto rates = allocate_bits(layers, budget);
  EXPECT_LE(used(layers, rates), budget);  // exactly, with the start states of two planes
  EXPECT_GT(used(layers, rates), budget - 0.3 * 192 * 64);
  EXPECT_GE(rates.at("b"), rates.at("a"));
  EXPECT_GT(rates.at("a"), rates.at("c"));
  for (const auto& [module, rate] : rates) {
    EXPECT_GE(rate, 1) << module;
    EXPECT_LE(rate, 2.25) << module;
  }
}

// Steps are convex in what they are worth, so that for layers of one size no allocation is better.
TEST(AllocateBits, IsTheBestOfAll) {
  const MethodConfig base = configure("gptq", {{"bits", 2}});
  std::vector<RatedLayer> layers;
  for (const double gain : {0.3, 0.1, 0.05, 0.6, 0.2}) {
    layers.push_back({std::to_string(layers.size()), 8, 128, base, gain});
  }
  const BitsRange range = bits_range(layers);
  for (int steps = 0; steps <= 5; ++steps) {
    // A step is a bit a weight, and a bit of each zero.
    const double budget = range.least + steps * (range.most - range.least) / 5 + 1e-6;
    const auto rates = allocate_bits(layers, budget);
    EXPECT_EQ(std::count_if(rates.begin(), rates.end(), [](auto& x) { return x.second == 3; }),
              steps);
    double best = INFINITY;
    for (int choice = 0; choice < 1 << 5; ++choice) {
      std::map<std::string, double> other;
      for (int i = 0; i < 5; ++i) other[std::to_string(i)] = 2 + (choice >> i & 1);
      if (used(layers, other) <= budget) best = std::min(best, left(layers, other));
    }
    EXPECT_LE(used(layers, rates), budget);
    EXPECT_NEAR(left(layers, rates), best, 1e-12) << steps;
  }
}

}  // namespace
}  // namespace billm
