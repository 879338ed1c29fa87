// Layers and settings for the conformance tests of the method table.
#pragma once

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
  double error(const RegionCodes& linear) const { return error(dequantize(linear)); }

  std::vector<float> w;
  int64_t rows, cols;
  CalibrationStats stats;
  Hessian hessian;
};

inline MethodConfig config_of(const Method& method) {
  MethodConfig config;
  config.method = method.name;
  if (method.needs_nm) config.nm = {4, 8};
  return config;
}

struct Variant {
  std::string name;
  MethodConfig config;
};

// The default settings of a method and every other choice that a setting has, one at a time.
inline std::vector<Variant> variants(const Method& method) {
  std::vector<Variant> all = {{"default", config_of(method)}};
  const auto add = [&](const std::string& name, auto change) {
    MethodConfig config = config_of(method);
    change(config);
    all.push_back({name, config});
  };
  // What a method does not use, check_config refuses.
  if (method.refines || method.min_bits == 1) {
    add("f16", [](auto& c) { c.scale_format = ScaleFormat::kF16; });
    add("f32", [](auto& c) { c.scale_format = ScaleFormat::kF32; });
  }
  if (method.refines) {
    add("offsets", [](auto& c) { c.offset_kind = OffsetKind::kBlock; });
    add("offsets f16", [](auto& c) {
      c.offset_kind = OffsetKind::kBlock;
      c.scale_format = ScaleFormat::kF16;
    });
    add("feedback blocks", [](auto& c) { c.feedback = Feedback::kBlocks; });
    add("feedback none", [](auto& c) { c.feedback = Feedback::kNone; });
    add("no refinement", [](auto& c) { c.refine_rounds = 0; });
    add("no descent", [](auto& c) { c.descend = false; });
  }
  add("blocks of 16", [](auto& c) { c.block_size = 16; });
  add("blocks of 4096", [](auto& c) { c.block_size = 4096; });
  if (method.has_reference) {
    add("reference", [](auto& c) { c.reference = true; });
  }
  if (method.classes > 0) {
    add("saliency", [](auto& c) { c.objective = SearchObjective::kSaliency; });
    add("no salient columns", [](auto& c) { c.max_salient = 0; });
    add("one class", [](auto& c) { c.classes = 1; });
    add("no salient classes", [](auto& c) { c.salient_classes = 0; });
    add("3 classes, 2 salient", [](auto& c) {
      c.classes = 3;
      c.salient_classes = 2;
    });
    if (!method.needs_nm) {
      add("one class, 3 salient", [](auto& c) {
        c.classes = 1;
        c.salient_classes = 3;
      });
    }
  }
  for (int bits = method.min_bits + 1; bits <= method.max_bits; ++bits) {
    add(std::to_string(bits) + " bits", [&](auto& c) { c.bits = bits; });
  }
  if (method.has_order) {
    add("no act-order", [](auto& c) { c.act_order = false; });
    add("no act-order, blocks of 16", [](auto& c) {
      c.act_order = false;
      c.block_size = 16;
    });
  }
  if (method.has_share) {
    for (const double share : {0.001, 0.3, 0.5}) {
      add("share " + std::to_string(share), [&](auto& c) { c.salient_share = share; });
    }
    add("magnitude", [](auto& c) { c.salient_metric = SalientMetric::kMagnitude; });
    add("share 0.3, no refinement", [](auto& c) {
      c.salient_share = 0.3;
      c.refine_rounds = 0;
    });
  }
  if (method.needs_nm) {
    for (const NmPattern nm : {NmPattern{1, 2}, {6, 8}, {8, 8}, {3, 16}}) {
      add(nm.text(), [&](auto& c) { c.nm = nm; });
    }
  }
  return all;
}

}  // namespace billm::test
