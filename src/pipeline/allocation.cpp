// See allocation.h.
#include "allocation.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sum.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "billm/base/error.h"
#include "billm/base/log.h"
#include "billm/base/parallel.h"
#include "billm/calibrate/collect.h"
#include "billm/quantize/methods.h"

namespace billm {
namespace {

constexpr double kOutlierFactor = 6;
constexpr double kRange = 2;  // difference of N between the most and the least sensitive layer
constexpr double kTolerance = 0.01;

// Diagonal of X^T X of each input group of a block, [width].
std::map<std::string, std::vector<float>> input_squares(const ModelSpec& spec, const Block& block,
                                                        const Rope& rope, const Sequences& hidden,
                                                        int threads) {
  const int64_t sequences = hidden.count();
  const std::vector<std::string> groups = spec.groups();
  std::vector<std::map<std::string, at::Tensor>> parts(static_cast<size_t>(sequences));
  parallel_for(sequences, threads, [&](int64_t i) {
    const at::NoGradGuard no_grad;
    BlockPoint point = enter_block(spec, block, hidden.load(i));
    for (const std::string& group : groups) {
      walk_block(spec, block, rope, group, &point);
      parts[static_cast<size_t>(i)][group] = point.input.mul(point.input).sum(0).cpu();
    }
  });
  std::map<std::string, std::vector<float>> squares;
  for (const auto& part : parts) {
    for (const auto& [group, tensor] : part) {
      std::vector<float>& sum = squares[group];
      sum.resize(static_cast<size_t>(tensor.numel()), 0.0f);
      const float* values = tensor.const_data_ptr<float>();
      for (size_t j = 0; j < sum.size(); ++j) sum[j] += values[j];
    }
  }
  return squares;
}

double outlier_share(const at::Tensor& weight, const std::vector<float>& squares) {
  const at::Tensor w = weight.cpu().contiguous();
  const std::vector<float> scores =
      si_scores({w.const_data_ptr<float>(), w.size(0), w.size(1)}, squares);
  double mean = 0;
  for (const float s : scores) mean += s;
  mean /= static_cast<double>(scores.size());
  double outliers = 0;
  for (const float s : scores) outliers += s > kOutlierFactor * mean;
  return outliers / static_cast<double>(scores.size());
}

void warn_of_bits(const std::string& what, double wanted, double smallest) {
  char text[96];
  std::snprintf(text, sizeof(text),
                " %g is less than the smallest factors of layers of this size take: %.3f", wanted,
                smallest);
  log_warning(what + text);
}

}  // namespace

std::vector<LayerOutliers> measure_outliers(const OriginalPass& pass, HiddenStates* hidden) {
  const ModelSpec& spec = pass.model.spec();
  std::vector<LayerOutliers> layers;
  pass_original(pass, "outliers", /*last=*/false, hidden, [&](int64_t b, const Block& block) {
    const auto squares = input_squares(spec, block, pass.rope, *hidden, pass.threads);
    const auto& linears = spec.family->linears;
    std::vector<LayerOutliers> found(linears.size());
    parallel_for(static_cast<int64_t>(linears.size()), pass.threads, [&](int64_t i) {
      const at::Tensor& weight = block.weight(linears[i].suffix);
      found[i] = {spec.module(b, linears[i]), weight.numel(),
                  outlier_share(weight, squares.at(linears[i].group))};
    });
    layers.insert(layers.end(), found.begin(), found.end());
  });
  return layers;
}

std::map<std::string, NmPattern> allocate_nm(const std::vector<LayerOutliers>& layers,
                                             const NmPattern& target) {
  if (layers.empty()) return {};
  double low = INFINITY, high = -INFINITY, total = 0, centre = 0;
  for (const LayerOutliers& layer : layers) {
    low = std::min(low, layer.share);
    high = std::max(high, layer.share);
    total += static_cast<double>(layer.weights);
  }
  std::vector<double> ideal;
  for (const LayerOutliers& layer : layers) {
    ideal.push_back(high > low ? (layer.share - low) / (high - low) * kRange : 0.0);
    centre += ideal.back() * static_cast<double>(layer.weights) / total;
  }
  std::vector<int> n;
  for (double& value : ideal) {
    value += target.n - centre;
    n.push_back(std::clamp(static_cast<int>(std::lround(value)), 1, target.m));
  }
  // Move the layer whose rounding lies farthest on the wrong side, as long as that helps.
  for (size_t moves = 0; moves < 4 * layers.size(); ++moves) {
    double mean = 0;
    for (size_t i = 0; i < layers.size(); ++i) {
      mean += n[i] * static_cast<double>(layers[i].weights) / total;
    }
    const double excess = (mean - target.n) / target.m;
    if (std::fabs(excess) <= kTolerance) break;
    const int step = excess > 0 ? -1 : 1;
    size_t best = layers.size();
    double most = -INFINITY;
    for (size_t i = 0; i < layers.size(); ++i) {
      if (n[i] + step < 1 || n[i] + step > target.m) continue;
      // Do not overshoot to the other side by more than where we stand.
      const double change = static_cast<double>(layers[i].weights) / total / target.m;
      if (std::fabs(excess + step * change) >= std::fabs(excess)) continue;
      const double wish = step * (ideal[i] - n[i]);
      if (wish > most) {
        most = wish;
        best = i;
      }
    }
    if (best == layers.size()) break;
    n[best] += step;
  }
  std::map<std::string, NmPattern> patterns;
  for (size_t i = 0; i < layers.size(); ++i) patterns[layers[i].module] = {n[i], target.m};
  return patterns;
}

std::map<std::string, double> plan_bits(const ModelSpec& spec, const MethodConfig& config,
                                        const LayerPlan& plan) {
  const Method& method = find_method(config.method);
  if (method.plan_bits == nullptr) return {};
  std::vector<std::string> modules;
  std::vector<LayerSize> sizes;
  for (int64_t b = 0; b < spec.blocks(); ++b) {
    for (const std::string& group : spec.groups()) {
      for (const LinearSpec& linear : spec.family->linears) {
        const std::string module = spec.module(b, linear);
        if (linear.group != group || !follows_run(plan, module, "bits")) continue;
        modules.push_back(module);
        sizes.push_back({linear.out_width(spec.config), linear.in_width(spec.config)});
      }
    }
  }
  const std::vector<double> bits = method.plan_bits(sizes, config);
  std::map<std::string, double> planned;
  double weights = 0, stored = 0;
  for (size_t i = 0; i < modules.size(); ++i) {
    planned[modules[i]] = bits[i];
    const double size = static_cast<double>(sizes[i].rows) * static_cast<double>(sizes[i].cols);
    weights += size;
    stored += bits[i] * size;
  }
  if (stored > (config.bits + 1e-9) * weights)
    warn_of_bits("--bits", config.bits, stored / weights);
  return planned;
}

void warn_of_planned_bits(const ModelSpec& spec, const MethodConfig& run, const LayerPlan& plan) {
  std::vector<std::string> layers;
  double wanted = 0, smallest = 0;  // of the first
  for (int64_t b = 0; b < spec.blocks(); ++b) {
    for (const LinearSpec& linear : spec.family->linears) {
      const std::string module = spec.module(b, linear);
      if (plan.count(module) == 0 || stays(plan, module)) continue;
      const MethodConfig config = planned_config(run, plan, module);
      const Method& method = find_method(config.method);
      if (method.plan_bits == nullptr || follows_run(plan, module, "bits")) continue;
      const LayerSize size = {linear.out_width(spec.config), linear.in_width(spec.config)};
      const double bits = method.plan_bits({&size, 1}, config).front();
      if (bits <= config.bits + 1e-9) continue;
      layers.push_back(module);
      if (layers.size() > 1) continue;
      wanted = config.bits;
      smallest = bits;
    }
  }
  if (layers.empty()) return;
  std::string what = layers.front();
  if (layers.size() > 1) what += " and " + std::to_string(layers.size() - 1) + " more layers";
  warn_of_bits(what + ": bits", wanted, smallest);
}

}  // namespace billm
