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
    if (!uses(method, "bits")) continue;
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

// Where a layer stands among the rates.
struct Ladder {
  const RatedLayer* layer;
  size_t at = 0;
};

}  // namespace

std::vector<double> rates_of(const MethodConfig& config) {
  const Method& method = find_method(config.method);
  if (!uses(method, "bits")) {
    throw Error(ErrorCode::kUsage,
                "--target-bits: --method " + config.method + " has no rates to choose from",
                "choose one of " + methods_with_rates());
  }
  const Range range = range_of(find_setting("bits"), method);
  const double step = range.whole ? 1 : range.step > 0 ? range.step : kStep;
  std::vector<double> rates;
  const double low = range.whole ? std::max(2.0, range.low) : range.low;
  for (int64_t i = 0;; ++i) {
    const double rate = low + static_cast<double>(i) * step;
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

std::map<std::string, double> allocate_bits(const std::vector<RatedLayer>& layers,
                                            const MethodConfig& config, double base,
                                            double budget) {
  std::vector<double> rates = rates_of(config);
  const auto at_base = std::lower_bound(rates.begin(), rates.end(), base - 1e-9);
  const auto lowest = at_base - std::min<int64_t>(kStepsDown, at_base - rates.begin());
  const auto highest = std::upper_bound(at_base, rates.end(), base + kMostAbove + 1e-9);
  rates = std::vector<double>(lowest, highest);

  const Method& method = find_method(config.method);
  const auto bits_of = [&](const RatedLayer& layer, double rate) {
    const double bits = method.rate_bits != nullptr
                            ? method.rate_bits({layer.rows, layer.cols}, rate)
                            : layer.stored_bits + rate - base;
    return weights_of(layer) * bits;
  };
  const auto error = [&](double rate) { return std::pow(kErrorOfABit, rate - base); };
  std::vector<Ladder> ladders;
  double used = 0, weights = 0;
  for (const RatedLayer& layer : layers) {
    ladders.push_back({&layer});
    used += bits_of(layer, rates.front());
    weights += weights_of(layer);
  }
  if (used > budget) {
    throw Error(ErrorCode::kUsage,
                "--target-bits: the layers take " + number(used / weights) +
                    " stored bits at the lowest rates, " + number(budget / weights) +
                    " are left for them",
                "ask for more bits");
  }
  // Gain per bit of the next step; of equal ones the first layer's.
  const auto worth = [&](size_t i) {
    const Ladder& ladder = ladders[i];
    const double from = rates[ladder.at], to = rates[ladder.at + 1];
    return std::pair<double, int64_t>(worth_of(*ladder.layer) * (error(from) - error(to)) /
                                          (weights_of(*ladder.layer) * (to - from)),
                                      -static_cast<int64_t>(i));
  };
  std::priority_queue<std::pair<double, int64_t>> steps;
  const auto offer = [&](size_t i) {
    if (ladders[i].at + 1 < rates.size()) steps.push(worth(i));
  };
  for (size_t i = 0; i < ladders.size(); ++i) offer(i);
  while (!steps.empty()) {
    const auto i = static_cast<size_t>(-steps.top().second);
    steps.pop();
    Ladder& ladder = ladders[i];
    const double more =
        bits_of(*ladder.layer, rates[ladder.at + 1]) - bits_of(*ladder.layer, rates[ladder.at]);
    if (used + more > budget) continue;  // a smaller layer may still fit
    used += more;
    ++ladder.at;
    offer(i);
  }
  std::map<std::string, double> result;
  for (const Ladder& ladder : ladders) result[ladder.layer->module] = rates[ladder.at];
  return result;
}

}  // namespace billm
