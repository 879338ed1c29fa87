// billm inspect: what a packed model holds. Bits and shares come from the planes in the file,
// errors from the manifest.
#include <cstdio>
#include <map>
#include <memory>
#include <optional>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/base/json_text.h"
#include "billm/checkpoint/json.h"
#include "billm/model/model.h"
#include "billm/model/model_bits.h"
#include "billm/model/runtime.h"
#include "billm/report/report.h"
#include "command.h"
#include "common.h"

namespace billm {
namespace {

struct Options {
  CommonOptions common;
  std::string directory;
};

std::string shares_text(const std::vector<double>& shares, const RegionFormat& shape) {
  std::string text;
  char part[32];
  for (size_t r = 0; r < shares.size(); ++r) {
    if (r == 0 && !shape.nm.active()) continue;
    const bool salient = static_cast<int>(r) > shape.classes;
    const int cls = static_cast<int>(r) - 1 - (salient ? shape.classes : 0);
    if (r == 0) {
      std::snprintf(part, sizeof(part), "pruned %.3f", shares[r]);
    } else if (static_cast<int>(r) == shape.integer_region()) {
      std::snprintf(part, sizeof(part), "%d-bit %.3f", shape.integer_bits, shares[r]);
    } else {
      std::snprintf(part, sizeof(part), "%s%d %.3f", salient ? "salient" : "class", cls, shares[r]);
    }
    text += (text.empty() ? "" : ", ") + std::string(part);
  }
  return text;
}

std::string share_text(const nlohmann::ordered_json& share) {
  if (share.is_null()) return "-";  // of layers without regions
  char text[32];
  std::snprintf(text, sizeof(text), "%.4f", share.get<double>());
  return text;
}

// "rotation", "trellis 4+2".
std::string kind_text(const FactorReport& factor) {
  std::string text = factor.kind;
  const auto rates = factor.statistics.find("rates");
  if (rates == factor.statistics.end()) return text;
  for (size_t p = 0; p < rates->size(); ++p) text += (p == 0 ? " " : "+") + dump_json(rates->at(p));
  return text;
}

// The region shares of each factor, or what else it is, outermost first.
std::string factors_text(const LayerCodes& codes, const LayerReport& layer) {
  std::string text;
  for (size_t i = 0; i < codes.factors.size(); ++i) {
    const auto* regions = std::get_if<RegionCodes>(&codes.factors[i]);
    const FactorReport& factor = layer.factors.at(i);
    text +=
        (i > 0 ? " x " : "") +
        (regions == nullptr ? kind_text(factor)
                            : shares_text(factor.statistics.at("region_shares"), regions->shape));
  }
  return text;
}

std::string error_text(const std::optional<double>& error) {
  if (!error) return "-";  // distilled: not known
  char text[32];
  std::snprintf(text, sizeof(text), "%.6f", *error);
  return text;
}

// A layer that was not quantized, as its tensor is.
void report_as_it_is(const Model& model, bool print, LayerReport* layer_report,
                     nlohmann::ordered_json* json) {
  LayerReport& layer = *layer_report;
  const TensorView& weight = model.checkpoint().tensor(layer.name + ".weight");
  layer.rows = weight.shape.front();
  layer.cols = weight.shape.back();
  layer.nominal_bits = layer.stored_bits = 8.0 * static_cast<double>(dtype_bytes(weight.dtype));
  layer.factors.clear();
  nlohmann::ordered_json entry = layer;
  entry["layout"] = nullptr;
  (*json)["layers"].push_back(std::move(entry));
  if (!print) return;
  const std::string shape = std::to_string(layer.rows) + "x" + std::to_string(layer.cols);
  std::printf("%-40s %-13s %-6s %-5s %7s %7.4f %7.4f %9s  as it is\n", layer.name.c_str(),
              shape.c_str(), "-", "-", "-", layer.nominal_bits, layer.stored_bits, "-");
}

void run(const Options& options) {
  options.common.check_json();
  const std::filesystem::path directory = model_or_newest(options.directory, options.common.quiet);
  init_torch();
  const Model model(directory, options.common.resolved_threads());
  if (model.packed() == nullptr) {
    throw bad_input(directory.string() + ": is not a packed model",
                    "give the directory that billm quantize wrote");
  }
  const std::filesystem::path path = directory / "manifest.json";
  const nlohmann::ordered_json manifest = parse_json_object(read_text_file(path), path.string());
  std::vector<LayerReport> layers;
  nlohmann::json settings;
  std::map<std::string, IntegerRowsReport> outside;
  std::string method;
  std::map<std::string, std::string> methods;  // of layers with another one
  try {
    settings = manifest.at("settings");
    method = settings.at("method").get<std::string>();
    for (const auto& entry : manifest.at("layers")) {
      layers.emplace_back();
      from_json(entry, layers.back());
    }
    for (const auto& entry : manifest.value("integer_rows", nlohmann::ordered_json::array())) {
      IntegerRowsReport rows;
      from_json(entry, rows);
      outside[rows.name] = rows;
    }
    const auto plan = manifest.value("plan", nlohmann::ordered_json::object());
    for (const auto& [module, own] : plan.items()) {
      if (own.contains("method")) methods[module] = own.at("method").get<std::string>();
    }
  } catch (const nlohmann::json::exception& error) {
    throw bad_input(path.string() + ": " + error.what());
  }
  nlohmann::ordered_json json = {
      {"model", directory.string()}, {"method", method}, {"settings", settings}};
  if (options.common.print()) {
    std::printf("%-40s %-13s %-6s %-5s %7s %7s %7s %9s  %s\n", "layer", "shape", "method", "N:M",
                "salient", "nominal", "stored", "error", "region shares");
  }
  double weights = 0;
  std::optional<double> worst;
  int64_t bytes = 0;
  for (LayerReport& layer : layers) {
    if (!model.packed()->has(layer.name)) {
      report_as_it_is(model, options.common.print(), &layer, &json);
      weights += static_cast<double>(layer.rows * layer.cols);
      continue;
    }
    const PackedLayer packed = model.packed()->open(layer.name);
    const LayerCodes codes = unpack(packed);
    layer.stored_bits = packed.stored_bits();
    layer.factors = report_codes(codes, 1).factors;
    weights += static_cast<double>(layer.rows * layer.cols);
    bytes += packed.bytes();
    if (layer.error) worst = std::max(worst.value_or(0), *layer.error);
    nlohmann::ordered_json entry = layer;
    entry["layout"] = packed.layout();
    json["layers"].push_back(std::move(entry));
    if (!options.common.print()) continue;
    const std::string shape = std::to_string(layer.rows) + "x" + std::to_string(layer.cols);
    std::printf(
        "%-40s %-13s %-6s %-5s %7s %7.4f %7.4f %9s  %s\n", layer.name.c_str(), shape.c_str(),
        (methods.count(layer.name) > 0 ? methods.at(layer.name) : method).c_str(),
        layer.nm.empty() ? "-" : layer.nm.c_str(),
        share_text(statistic(layer, "salient_share")).c_str(), layer.nominal_bits,
        layer.stored_bits, error_text(layer.error).c_str(), factors_text(codes, layer).c_str());
  }
  for (const auto& [name, rows] : model.packed()->all_integer_rows()) {
    IntegerRowsReport& report = outside[name];
    report.name = name;
    report.rows = rows.rows;
    report.cols = rows.cols;
    report.bits = rows.bits;
    report.stored_bits = rows.stored_bits();
    nlohmann::ordered_json entry = report;
    entry["layout"] = "integer_rows";
    json["integer_rows"].push_back(std::move(entry));
    if (!options.common.print()) continue;
    const std::string shape = std::to_string(rows.rows) + "x" + std::to_string(rows.cols);
    std::printf("%-40s %-13s %-6s %-5s %7s %7d %7.4f %9.6f  a scale for %ld columns\n",
                name.c_str(), shape.c_str(), "rows", "-", "-", rows.bits, report.stored_bits,
                report.error, static_cast<long>(rows.block_size));
  }
  const MeanBits bits = mean_bits(layers);
  const ModelBits whole = model_bits(model);
  json["totals"] = {
      {"layers", layers.size()},
      {"weights", static_cast<int64_t>(weights)},
      {"packed_bytes", bytes},
      {"nominal_bits", bits.nominal},
      {"stored_bits", bits.stored},
      {"file_bits", whole.file_bits},
      {"parameters", whole.parameters},
      {"largest_error", worst ? nlohmann::ordered_json(*worst) : nlohmann::ordered_json(nullptr)}};
  if (options.common.print()) {
    std::printf(
        "total: %zu layers, %.0f weights, %ld packed bytes; nominal %.4f bits, stored %.4f "
        "bits; largest error %s\n"
        "whole file: %.4f bits for each of %ld parameters\n",
        layers.size(), weights, static_cast<long>(bytes), bits.nominal, bits.stored,
        error_text(worst).c_str(), whole.file_bits, static_cast<long>(whole.parameters));
  }
  options.common.write_json(json);
}

}  // namespace

std::function<void()> setup_inspect(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("DIR", options->directory, "Packed model (default: the newest result)");
  options->common.add_to(app);
  app.footer(
      "error = tr(D H D') / tr(W H W'), D the weight minus what the file decodes to, H the\n"
      "undamped calibration Hessian (- after distillation). stored = 8 * bytes of all planes / "
      "weights.");
  return [options] { run(*options); };
}

}  // namespace billm
