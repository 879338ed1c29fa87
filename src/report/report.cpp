// See include/billm/report/report.h.
#include "billm/report/report.h"

#include <variant>

namespace billm {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kPlanes = "planes";

Json nullable(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

Json factor_json(const FactorReport& factor) {
  Json json = {{"kind", factor.kind}, {"shape", {factor.rows, factor.cols}}};
  json.update(factor.statistics);
  return json;
}

FactorReport factor_from(const Json& json) {
  FactorReport factor;
  factor.kind = json.at("kind").get<std::string>();
  factor.rows = json.at("shape").at(0);
  factor.cols = json.at("shape").at(1);
  factor.statistics = json;
  for (const char* key : {"kind", "shape"}) factor.statistics.erase(key);
  return factor;
}

Json statistics_of(const RegionCodes& codes, int threads) {
  return {{"salient_share", salient_share(codes)},
          {"region_shares", region_shares(codes, threads)},
          {"integer_bits", codes.shape.integer_bits}};
}

Json statistics_of(const Rotation& rotation, int) {
  return {{"seed", rotation.seed}, {"transposed", rotation.transposed}};
}

Json statistics_of(const TrellisCodes& codes, int) { return {{"rates", codes.format.rates}}; }

bool is_one_of_planes(const LayerReport& layer) {
  return layer.factors.size() == 1 && layer.factors[0].kind == kPlanes;
}

}  // namespace

LayerReport report_codes(const LayerCodes& codes, int threads) {
  LayerReport layer;
  layer.rows = codes.rows();
  layer.cols = codes.cols();
  for (const Factor& factor : codes.factors) {
    FactorReport report = {factor_kind_names()[factor.index()], factor_rows(factor),
                           factor_cols(factor)};
    report.statistics =
        std::visit([threads](const auto& kind) { return statistics_of(kind, threads); }, factor);
    layer.factors.push_back(std::move(report));
    const auto* regions = std::get_if<RegionCodes>(&factor);
    if (regions != nullptr && regions->shape.nm.active()) layer.nm = regions->shape.nm.text();
  }
  return layer;
}

const Json& statistic(const LayerReport& layer, const char* name) {
  static const Json kNone;
  for (const FactorReport& factor : layer.factors) {
    const auto found = factor.statistics.find(name);
    if (found != factor.statistics.end()) return *found;
  }
  return kNone;
}

void SinkReport::add(const SinkReport& other) {
  tokens += other.tokens;
  original_norm += other.original_norm;
  norm += other.norm;
  error += other.error;
}

MeanBits mean_bits(const std::vector<LayerReport>& layers) {
  double weights = 0, nominal = 0, stored = 0;
  for (const LayerReport& layer : layers) {
    const auto count = static_cast<double>(layer.rows * layer.cols);
    weights += count;
    nominal += count * layer.nominal_bits;
    stored += count * layer.stored_bits;
  }
  return {nominal / weights, stored / weights};
}

void to_json(Json& json, const LayerReport& layer) {
  json = {{"name", layer.name},
          {"shape", {layer.rows, layer.cols}},
          {"nm", layer.nm.empty() ? Json(nullptr) : Json(layer.nm)},
          {"nominal_bits", layer.nominal_bits},
          {"stored_bits", layer.stored_bits}};
  if (is_one_of_planes(layer)) {
    json.update(layer.factors[0].statistics);
  } else {
    json["factors"] = Json::array();
    for (const FactorReport& factor : layer.factors) json["factors"].push_back(factor_json(factor));
  }
  json["damping"] = layer.damping;
  json["error"] = nullable(layer.error);
}

void from_json(const Json& json, LayerReport& layer) {
  layer = {};
  layer.name = json.at("name").get<std::string>();
  layer.rows = json.at("shape").at(0);
  layer.cols = json.at("shape").at(1);
  layer.nm = json.at("nm").is_null() ? "" : json.at("nm").get<std::string>();
  layer.nominal_bits = json.at("nominal_bits");
  layer.stored_bits = json.at("stored_bits");
  if (json.contains("factors")) {
    for (const Json& factor : json.at("factors")) layer.factors.push_back(factor_from(factor));
  } else {
    FactorReport factor = {kPlanes, layer.rows, layer.cols, Json::object()};
    for (const char* name : {"salient_share", "region_shares"}) {
      factor.statistics[name] = json.at(name);
    }
    factor.statistics["integer_bits"] = json.value("integer_bits", 0);  // absent before integers
    layer.factors.push_back(std::move(factor));
  }
  layer.damping = json.at("damping");
  if (!json.at("error").is_null()) layer.error = json.at("error").get<double>();
}

void to_json(Json& json, const TuneReport& tune) {
  json = {{"loss_before", tune.loss_before},
          {"loss_after", tune.loss_after},
          {"best_step", tune.best_step},
          {"seconds", tune.seconds}};
}

void from_json(const Json& json, TuneReport& tune) {
  tune.loss_before = json.at("loss_before");
  tune.loss_after = json.at("loss_after");
  tune.best_step = json.at("best_step");
  tune.seconds = json.at("seconds");
}

void to_json(Json& json, const SinkReport& sinks) {
  const auto mean = [&](double sum) {
    return sinks.tokens > 0 ? Json(sum / static_cast<double>(sinks.tokens)) : Json(nullptr);
  };
  json = {{"tokens", sinks.tokens},
          {"original_norm", mean(sinks.original_norm)},
          {"norm", mean(sinks.norm)},
          {"error", mean(sinks.error)}};
}

void from_json(const Json& json, SinkReport& sinks) {
  sinks = {};
  sinks.tokens = json.at("tokens");
  if (sinks.tokens == 0) return;
  const auto tokens = static_cast<double>(sinks.tokens);
  sinks.original_norm = tokens * json.at("original_norm").get<double>();
  sinks.norm = tokens * json.at("norm").get<double>();
  sinks.error = tokens * json.at("error").get<double>();
}

void to_json(Json& json, const CalibrationPart& part) {
  json = {{"name", part.name}, {"weight", part.weight}, {"windows", part.windows}};
  if (!part.digest.empty()) json["digest"] = part.digest;
}

void to_json(Json& json, const IntegerRowsReport& rows) {
  json = {{"name", rows.name},
          {"shape", {rows.rows, rows.cols}},
          {"bits", rows.bits},
          {"stored_bits", rows.stored_bits},
          {"error", rows.error}};
}

void from_json(const Json& json, IntegerRowsReport& rows) {
  rows.name = json.at("name").get<std::string>();
  rows.rows = json.at("shape").at(0);
  rows.cols = json.at("shape").at(1);
  rows.bits = json.at("bits");
  rows.stored_bits = json.at("stored_bits");
  rows.error = json.at("error");
}

void to_json(Json& json, const QuantizeReport& report) {
  const QuantizeSeconds& seconds = report.seconds;
  json = {{"output", report.output.string()},
          {"method", report.method},
          {"nominal_bits", report.nominal_bits},
          {"stored_bits", report.stored_bits},
          {"file_bits", report.file_bits},
          {"parameters", report.parameters},
          {"bytes_before", report.bytes_before},
          {"bytes_after", report.bytes_after},
          {"blocks", report.blocks},
          {"resumed_blocks", report.resumed_blocks},
          {"hidden_place", report.hidden_place},
          {"seconds",
           {{"forward", seconds.forward},
            {"hessian", seconds.hessian},
            {"quantize", seconds.quantize},
            {"tune", seconds.tune},
            {"pack", seconds.pack},
            {"write", seconds.write},
            {"plan", seconds.plan},
            {"total", seconds.total}}},
          {"peak_rss_bytes", report.peak_rss_bytes}};
  if (report.target_bits) json["target_bits"] = *report.target_bits;
  if (!report.plan.empty()) json["plan"] = report.plan;
  if (!report.calibration_parts.empty()) json["calibration_parts"] = report.calibration_parts;
  if (!report.integer_rows.empty()) json["integer_rows"] = report.integer_rows;
  for (const LayerReport& layer : report.layers) json["layers"].push_back(layer);
  for (const TuneReport& tune : report.tune) json["tune"].push_back(tune);
  for (const SinkReport& sinks : report.sinks) json["sinks"].push_back(sinks);
}

}  // namespace billm
