// See include/billm/quantize/allocate_bits.h.
#include "billm/quantize/allocate_bits.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <queue>
#include <utility>

#include "billm/base/error.h"
#include "billm/quantize/methods.h"
#include "billm/quantize/settings.h"

namespace billm {
namespace {

constexpr double kStep = 0.05;  // where rates are not in steps
constexpr double kMostAbove = 1;

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.4g", value);
  return text;
}

std::string methods_with_rates() {
  std::string names;
  for (const Method& method : methods()) {
    if (method.rate_bits == nullptr) continue;
    names += (names.empty() ? "" : ", ") + std::string(method.name);
  }
  return names;
}

double weights_of(const RatedLayer& layer) {
  return static_cast<double>(layer.rows) * static_cast<double>(layer.cols);
}

double worth_of(const RatedLayer& layer) {
  return std::sqrt(weights_of(layer) * std::max(0.0, layer.gain));
}

double bits_of(const RatedLayer& layer, double rate) {
  MethodConfig config = layer.config;
  config.bits = rate;
  return weights_of(layer) * find_method(config.method).rate_bits({layer.rows, layer.cols}, config);
}

// Those that a layer may get.
std::vector<double> rates_near(const MethodConfig& config) {
  const std::vector<double> rates = rates_of(config);
  const auto base = std::lower_bound(rates.begin(), rates.end(), config.bits - 1e-9);
  const auto lowest = base - std::min<int64_t>(kStepsDown, base - rates.begin());
  return {lowest, std::upper_bound(base, rates.end(), config.bits + kMostAbove + 1e-9)};
}

// Where a layer stands among them.
struct Ladder {
  const RatedLayer* layer;
  std::vector<double> rates;
  size_t at = 0;
};

}  // namespace

std::vector<double> rates_of(const MethodConfig& config) {
  const Method& method = find_method(config.method);
  if (method.rate_bits == nullptr) {
    throw Error(ErrorCode::kUsage,
                "--target-bits: --method " + config.method + " has no rates to choose from",
                "choose one of " + methods_with_rates());
  }
  const Range range = range_of(find_setting("bits"), method);
  const double step = range.whole ? 1 : range.step > 0 ? range.step : kStep;
  std::vector<double> rates;
  const double low = range.whole ? std::max(2.0, range.low) : range.low;
  for (int64_t i = 0;; ++i) {
    const double rate = std::round((low + static_cast<double>(i) * step) * 1e4) / 1e4;
    if (rate > range.high + 1e-9) return rates;
    rates.push_back(rate);
  }
}

double base_rate(const MethodConfig& config, double target) {
  const std::vector<double> rates = rates_of(config);
  const auto above = std::upper_bound(rates.begin(), rates.end(), target + 1e-9);
  // The least rates store some more than their name says.
  if (above == rates.begin() || !(target <= rates.back() + kMostAbove)) {
    throw Error(ErrorCode::kUsage, "--target-bits " + number(target) + ": expected " +
                                       number(rates.front()) + ".." + number(rates.back()) +
                                       " with --method " + config.method);
  }
  return *(above - 1);
}

BitsRange bits_range(const std::vector<RatedLayer>& layers) {
  BitsRange range;
  for (const RatedLayer& layer : layers) {
    const std::vector<double> rates = rates_near(layer.config);
    range.least += bits_of(layer, rates.front());
    range.most += bits_of(layer, rates.back());
  }
  return range;
}

std::map<std::string, double> allocate_bits(const std::vector<RatedLayer>& layers, double budget) {
  std::vector<Ladder> ladders;
  double used = 0;
  for (const RatedLayer& layer : layers) {
    ladders.push_back({&layer, rates_near(layer.config)});
    used += bits_of(layer, ladders.back().rates.front());
  }
  // What the next step is worth for each of its bits; of equal ones the first layer's.
  const auto worth = [&](size_t i) {
    const RatedLayer& layer = *ladders[i].layer;
    const double from = ladders[i].rates[ladders[i].at], to = ladders[i].rates[ladders[i].at + 1];
    const double gone = std::pow(kErrorOfABit, from - layer.config.bits) -
                        std::pow(kErrorOfABit, to - layer.config.bits);
    return std::pair<double, int64_t>(worth_of(layer) * gone / (weights_of(layer) * (to - from)),
                                      -static_cast<int64_t>(i));
  };
  std::priority_queue<std::pair<double, int64_t>> steps;
  const auto offer = [&](size_t i) {
    if (ladders[i].at + 1 < ladders[i].rates.size()) steps.push(worth(i));
  };
  for (size_t i = 0; i < ladders.size(); ++i) offer(i);
  while (!steps.empty()) {
    const auto i = static_cast<size_t>(-steps.top().second);
    steps.pop();
    Ladder& ladder = ladders[i];
    const double more = bits_of(*ladder.layer, ladder.rates[ladder.at + 1]) -
                        bits_of(*ladder.layer, ladder.rates[ladder.at]);
    if (used + more > budget) continue;  // a smaller layer may still fit
    used += more;
    ++ladder.at;
    offer(i);
  }
  std::map<std::string, double> result;
  for (const Ladder& ladder : ladders) result[ladder.layer->module] = ladder.rates[ladder.at];
  return result;
}

}  // namespace billm
