// See target_bits.h.
#include "target_bits.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/base/json_text.h"
#include "billm/learn/restoring_gains.h"
#include "billm/quantize/allocate_bits.h"
#include "billm/quantize/methods.h"
#include "layer_costs.h"
#include "output_directory.h"
#include "quantize_job.h"

namespace billm {
namespace {

// The reports of its layers, by module.
std::map<std::string, LayerReport> layer_reports(const std::filesystem::path& result) {
  const std::filesystem::path path = result / "manifest.json";
  std::map<std::string, LayerReport> reports;
  try {
    const auto manifest = parse_ordered_json(read_text_file(path));
    for (const auto& layer : manifest.at("layers")) {
      const auto report = layer.get<LayerReport>();
      reports[report.name] = report;
    }
  } catch (const nlohmann::json::exception& error) {
    throw bad_input(path.string() + ": " + error.what(), "start again with --overwrite");
  }
  return reports;
}

// The directory of the result whose layers all have the run's bits.
std::filesystem::path quantize_uniformly(QuantizeJob& job) {
  const std::filesystem::path out = job.partial / kUniformName;
  const auto there = [&](const std::filesystem::path& path) {  // the same for all processes
    const bool is_there = job.processes.first() && std::filesystem::exists(path);
    return job.processes.broadcast_text(0, is_there ? "yes" : "no") == "yes";
  };
  if (there(out)) return out;
  QuantizeRequest request = job.request;
  request.out = out;
  request.target_bits.reset();
  request.tune.reset();
  request.embedding_bits = {};
  request.overwrite = false;
  std::filesystem::path unfinished = out;
  unfinished += ".partial";
  request.resume = there(unfinished);
  request.label = "uniform";
  if (job.processes.first()) {
    write_journal(job.partial, job.journal);
    job.directory->keep();
  }
  quantize_model(request, job.processes);
  return out;
}

// The layers whose rate is to be found, at the base rate.
std::vector<RatedLayer> rated_layers(const ModelSpec& spec, const MethodConfig& run,
                                     const LayerPlan& plan) {
  std::vector<RatedLayer> layers;
  for (int64_t b = 0; b < spec.blocks(); ++b) {
    for (const LinearSpec& linear : spec.family->linears) {
      const std::string module = spec.module(b, linear);
      if (!follows_run(plan, module, "bits")) continue;
      layers.push_back({module, linear.out_width(spec.config), linear.in_width(spec.config),
                        planned_config(run, plan, module)});
    }
  }
  return layers;
}

LayerPlan allocate(const QuantizeJob& job, const std::filesystem::path& uniform,
                   const LayerPlan& given) {
  const QuantizeRequest& request = job.request;
  const Model quantized(uniform, request.threads);
  std::map<std::string, double> gains =
      restoring_gains(job.model, quantized, request.calibration, kGainWindows, job.device,
                      job.forward_threads, request.quiet)
          .gain;
  std::erase_if(gains, [&](const auto& gain) { return !follows_run(given, gain.first, "bits"); });
  gains = smoothed_gains(job.spec(), gains);
  std::vector<RatedLayer> layers = rated_layers(job.spec(), request.method, given);
  for (RatedLayer& layer : layers) layer.gain = gains.at(layer.module);
  double budget = 0;
  for (const auto& [module, report] : layer_reports(uniform)) {
    const auto weights = static_cast<double>(report.rows * report.cols);
    budget += *request.target_bits * weights;
    if (!follows_run(given, module, "bits")) budget -= report.stored_bits * weights;
  }
  LayerPlan plan = given;
  for (const auto& [module, bits] : allocate_bits(layers, budget)) plan[module]["bits"] = bits;
  return plan;
}

}  // namespace

ReachableBits check_target_bits(const ModelSpec& spec, const MethodConfig& run,
                                const LayerPlan& plan, double target) {
  const std::vector<RatedLayer> layers = rated_layers(spec, run, plan);
  if (layers.empty()) {
    throw Error(ErrorCode::kUsage, "--target-bits: --plan says the bits of every layer",
                "leave out one of them");
  }
  double weights = 0, fixed = 0;
  bool known = true;
  for (int64_t b = 0; b < spec.blocks(); ++b) {
    for (const LinearSpec& linear : spec.family->linears) {
      const std::string module = spec.module(b, linear);
      const LayerSize size = {linear.out_width(spec.config), linear.in_width(spec.config)};
      const auto here = static_cast<double>(size.rows) * static_cast<double>(size.cols);
      weights += here;
      if (stays(plan, module)) {
        fixed += 8 * static_cast<double>(weight_bytes(spec.config)) * here;
      } else if (!follows_run(plan, module, "bits")) {
        const MethodConfig config = planned_config(run, plan, module);
        const Method& method = find_method(config.method);
        known = known && method.rate_bits != nullptr;
        if (method.rate_bits != nullptr) fixed += here * method.rate_bits(size, config);
      }
    }
  }
  const BitsRange range = bits_range(layers);
  const ReachableBits reachable = {(range.least + fixed) / weights, (range.most + fixed) / weights};
  if (target < reachable.least || (known && target > reachable.most)) {
    char text[160];
    std::snprintf(text, sizeof(text),
                  "--target-bits %g: expected %.4f to %.4f stored bits, from "
                  "the lowest to the highest rates around %g",
                  target, std::ceil(1e4 * reachable.least) / 1e4,
                  std::floor(1e4 * reachable.most) / 1e4, run.bits);
    throw Error(ErrorCode::kUsage, text);
  }
  return reachable;
}

std::map<std::string, double> smoothed_gains(const ModelSpec& spec,
                                             const std::map<std::string, double>& gains) {
  const int64_t last = spec.blocks() - 1;
  std::map<std::string, double> smoothed;
  for (int64_t b = 0; b <= last; ++b) {
    for (const LinearSpec& linear : spec.family->linears) {
      const auto own = gains.find(spec.module(b, linear));
      if (own == gains.end()) continue;
      int64_t from = std::max<int64_t>(1, b - kGainNeighbours);
      int64_t to = std::min(last - 1, b + kGainNeighbours);
      if (b == 0 || b == last) from = to = b;
      double sum = 0;
      int count = 0;
      for (int64_t near = from; near <= to; ++near) {
        const auto found = gains.find(spec.module(near, linear));
        if (found == gains.end()) continue;
        sum += found->second;
        ++count;
      }
      smoothed[own->first] = sum / count;
    }
  }
  return smoothed;
}

LayerPlan plan_target_bits(QuantizeJob& job, const LayerPlan& given) {
  const std::filesystem::path uniform = quantize_uniformly(job);
  LayerPlan plan;
  if (job.processes.first()) plan = allocate(job, uniform, given);
  const std::string text = job.processes.broadcast_text(0, dump_json(nlohmann::ordered_json(plan)));
  return parse_ordered_json(text).get<LayerPlan>();
}

}  // namespace billm
