// Layers and settings for the conformance tests of the method table.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "billm/quantize/methods.h"
#include "support/random_layer.h"

namespace billm::test {

// A random weight with correlated calibration inputs, its Hessian with factor.
struct Layer {
  Layer(int64_t rows, int64_t cols, uint32_t seed)
      : Layer(random_normal(rows * cols, seed, 0.05f), rows, cols,
              correlated_stats(cols, 2 * cols + 20, seed + 1)) {
    for (int64_t i = 0; i < rows; ++i) {  // outlier columns, as real layers have
      for (int64_t j = static_cast<int64_t>(seed % 7); j < cols; j += 31) w[i * cols + j] *= 4;
    }
  }
  Layer(std::vector<float> weight, int64_t rows, int64_t cols, CalibrationStats statistics)
      : w(std::move(weight)),
        rows(rows),
        cols(cols),
        stats(std::move(statistics)),
        hessian(make_hessian(stats, true, 0.01, 1)) {}
  WeightView view() const { return {w.data(), rows, cols}; }
  double error(const std::vector<float>& q) const {
    return layer_error(w, q, hessian.matrix, hessian.lambda, cols);
  }
  double error(const LayerCodes& linear) const { return error(dequantize(linear)); }

  std::vector<float> w;
  int64_t rows, cols;
  CalibrationStats stats;
  Hessian hessian;
};

// The method's defaults, with groups of the same width for all.
inline MethodConfig config_of(const Method& method, GivenSettings given = {}) {
  const auto is_width = [](const auto& pair) { return pair.first == "block_size"; };
  if (uses(method, "block_size") && std::none_of(given.begin(), given.end(), is_width)) {
    given.emplace_back("block_size", 128);
  }
  return configure(method.name, given);
}

struct Variant {
  std::string name;
  MethodConfig config;
};

// The default settings of a method and every other choice that a setting has, one at a time.
inline std::vector<Variant> variants(const Method& method) {
  std::vector<Variant> all;
  const auto add = [&](const std::string& name, const GivenSettings& given) {
    for (const auto& [setting, value] : given) {
      if (!uses(method, setting)) return;
    }
    all.push_back({name, config_of(method, given)});
  };
  add("default", {});
  add("f16", {{"scale_format", "f16"}});
  add("f32", {{"scale_format", "f32"}});
  add("offsets", {{"offsets", "block"}});
  add("offsets f16", {{"offsets", "block"}, {"scale_format", "f16"}});
  add("feedback blocks", {{"feedback", "blocks"}});
  add("feedback none", {{"feedback", "none"}});
  add("no refinement", {{"refine_rounds", 0}});
  add("no descent", {{"descend", false}});
  add("blocks of 16", {{"block_size", 16}});
  add("blocks of 4096", {{"block_size", 4096}});
  add("reference", {{"compat", "reference"}});
  add("saliency", {{"objective", "saliency"}});
  add("no salient columns", {{"max_salient", 0}});
  add("one class", {{"classes", 1}});
  add("no salient classes", {{"salient_classes", 0}});
  add("3 classes, 2 salient", {{"classes", 3}, {"salient_classes", 2}});
  if (!uses(method, "nm")) {
    add("one class, 3 salient", {{"classes", 1}, {"salient_classes", 3}});
  }
  if (uses(method, "bits")) {
    const Range range = range_of(find_setting("bits"), method);
    if (!range.whole) {
      add("fewest bits", {{"bits", range.low}});
      add("most bits", {{"bits", range.high}});
    }
    for (int bits = static_cast<int>(range.low) + 1; range.whole && bits <= range.high; ++bits) {
      add(std::to_string(bits) + " bits", {{"bits", bits}});
    }
  }
  add("no sweeps", {{"sweeps", 0}});
  add("two planes", {{"bits", 1.5}, {"sweeps", 1}});
  add("no act-order", {{"act_order", false}});
  add("no act-order, blocks of 16", {{"act_order", false}, {"block_size", 16}});
  for (const double share : {0.001, 0.3, 0.5}) {
    add("share " + std::to_string(share), {{"salient", share}});
  }
  add("magnitude", {{"salient_metric", "magnitude"}});
  add("share 0.3, no refinement", {{"salient", 0.3}, {"refine_rounds", 0}});
  for (const char* nm : {"1:2", "6:8", "8:8", "3:16"}) add(nm, {{"nm", nm}});
  return all;
}

}  // namespace billm::test
