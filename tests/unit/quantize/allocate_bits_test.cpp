// Rates by gain: against every allocation of a few layers, and what is refused.
#include "billm/quantize/allocate_bits.h"

#include <gtest/gtest.h>

#include <cmath>

#include "billm/base/error.h"
#include "billm/quantize/methods.h"
#include "billm/quantize/settings.h"

namespace billm {
namespace {

double used(const std::vector<RatedLayer>& layers, const std::map<std::string, double>& rates,
            double base) {
  double bits = 0;
  for (const RatedLayer& layer : layers) {
    bits += static_cast<double>(layer.rows * layer.cols) *
            (layer.stored_bits + rates.at(layer.module) - base);
  }
  return bits;
}

double left(const std::vector<RatedLayer>& layers, const std::map<std::string, double>& rates,
            double base) {
  double loss = 0;
  for (const RatedLayer& layer : layers) {
    loss += std::sqrt(static_cast<double>(layer.rows * layer.cols) * layer.gain) *
            std::pow(kErrorOfABit, rates.at(layer.module) - base);
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
  const MethodConfig config = configure("trellis", {});
  const Method& method = find_method("trellis");
  const std::vector<RatedLayer> layers = {{"a", 512, 64, 1.07, 0.2},
                                          {"b", 512, 64, 1.07, 0.4},
                                          {"c", 512, 192, 1.07, 0.1},
                                          {"d", 192, 64, 1.07, -0.1}};
  const double weights = 512 * 320 + 192 * 64, budget = 1.6 * weights;
  const auto rates = allocate_bits(layers, config, 1.25, budget);
  double bits = 0;  // exactly, with the start states of two planes
  for (const RatedLayer& layer : layers) {
    bits += static_cast<double>(layer.rows * layer.cols) *
            method.rate_bits({layer.rows, layer.cols}, rates.at(layer.module));
  }
  EXPECT_LE(bits, budget);
  EXPECT_GT(bits, budget - 0.27 * 192 * 64);
  EXPECT_GE(rates.at("b"), rates.at("a"));
  EXPECT_GT(rates.at("a"), rates.at("c"));
  for (const auto& [module, rate] : rates) {
    EXPECT_GE(rate, 1) << module;
    EXPECT_LE(rate, 2.25) << module;
  }
}

// Steps are convex in their gain, so that for layers of one size no allocation is better.
TEST(AllocateBits, IsTheBestOfAll) {
  const MethodConfig config = configure("gptq", {});
  std::vector<RatedLayer> layers;
  for (const double gain : {0.3, 0.1, 0.05, 0.6, 0.2}) {
    layers.push_back({std::to_string(layers.size()), 8, 8, 2.1, gain});
  }
  for (int steps = 0; steps <= 5; ++steps) {
    const double budget = 64 * (2.1 * 5 + steps) + 1e-6;
    const auto rates = allocate_bits(layers, config, 2, budget);
    double best = INFINITY;
    for (int choice = 0; choice < 1 << 5; ++choice) {
      std::map<std::string, double> other;
      for (int i = 0; i < 5; ++i) other[std::to_string(i)] = 2 + (choice >> i & 1);
      if (used(layers, other, 2) <= budget) best = std::min(best, left(layers, other, 2));
    }
    EXPECT_LE(used(layers, rates, 2), budget);
    EXPECT_NEAR(left(layers, rates, 2), best, 1e-12) << steps;
  }
}

TEST(AllocateBits, RefusesWhatCannotBe) {
  const std::vector<RatedLayer> layers = {{"a", 100, 100, 2.03, 0.1}};
  EXPECT_THROW(allocate_bits(layers, configure("gptq", {}), 2, 20200), Error);
}

}  // namespace
}  // namespace billm
