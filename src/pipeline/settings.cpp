// See settings.h; and the JSON form of a layer's report.
#include "settings.h"

#include "billm/base/parallel.h"
#include "billm/base/sha256.h"
#include "billm/model/runtime.h"
#include "billm/quantize/settings.h"

namespace billm {
namespace {

nlohmann::ordered_json tune_json(const TuneConfig& tune) {
  return {{"steps", tune.steps},           {"window", tune.window},
          {"batch", tune.batch},           {"code_rate", tune.code_rate},
          {"scale_rate", tune.scale_rate}, {"norm_rate", tune.norm_rate},
          {"margin", tune.margin},         {"seed", tune.seed}};
}

}  // namespace

std::string source_digest(const Checkpoint& checkpoint, int threads) {
  const std::vector<std::string> names = checkpoint.names();
  std::vector<std::string> digests(names.size());
  parallel_for(static_cast<int64_t>(names.size()), threads, [&](int64_t i) {
    const TensorView& tensor = checkpoint.tensor(names[i]);
    digests[i] = names[i] + " " + dtype_name(tensor.dtype) + shape_text(tensor.shape) + " " +
                 sha256_hex(tensor.data) + "\n";
    checkpoint.release(names[i]);
  });
  Sha256 hash;
  hash.update(checkpoint.config().raw.dump());
  for (const std::string& digest : digests) hash.update(digest);
  return hash.hex();
}

std::string tokens_digest(const TokenMatrix& tokens) {
  Sha256 hash;
  hash.update(std::to_string(tokens.rows) + "x" + std::to_string(tokens.cols) + ";");
  hash.update(std::as_bytes(std::span(tokens.values)));
  return hash.hex();
}

nlohmann::ordered_json settings_json(const QuantizeRequest& request, const Checkpoint& source) {
  std::string name = std::filesystem::absolute(request.model).lexically_normal().filename();
  if (name.empty()) {
    name = std::filesystem::absolute(request.model).lexically_normal().parent_path().filename();
  }
  nlohmann::ordered_json json = {
      {"billm_version", BILLM_VERSION},
      {"device", resolve_device(request.device).is_cpu() ? "cpu" : "cuda"},
      {"model", name},
      {"model_digest", source_digest(source, request.threads)},
      {"method", request.method.method}};
  json.update(config_json(request.method));
  json.update(nlohmann::ordered_json{
      {"sequential", request.sequential},
      {"tune", request.tune ? tune_json(*request.tune) : nlohmann::ordered_json(nullptr)},
      {"calibration", request.calibration_source},
      {"calibration_digest", tokens_digest(request.calibration)},
      {"nsamples", request.calibration.rows},
      {"seqlen", request.calibration.cols},
      {"seed", request.seed}});
  return json;
}

void to_json(nlohmann::ordered_json& json, const TuneReport& tune) {
  json = {{"loss_before", tune.loss_before},
          {"loss_after", tune.loss_after},
          {"best_step", tune.best_step},
          {"seconds", tune.seconds}};
}

void from_json(const nlohmann::json& json, TuneReport& tune) {
  tune.loss_before = json.at("loss_before");
  tune.loss_after = json.at("loss_after");
  tune.best_step = json.at("best_step");
  tune.seconds = json.at("seconds");
}

void to_json(nlohmann::ordered_json& json, const LayerReport& layer) {
  json = {
      {"name", layer.name},
      {"shape", {layer.rows, layer.cols}},
      {"nm", layer.nm.empty() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(layer.nm)},
      {"nominal_bits", layer.nominal_bits},
      {"stored_bits", layer.stored_bits},
      {"salient_share", layer.salient_share},
      {"region_shares", layer.region_shares},
      {"integer_bits", layer.integer_bits},
      {"damping", layer.damping},
      {"error",
       layer.error ? nlohmann::ordered_json(*layer.error) : nlohmann::ordered_json(nullptr)}};
}

void from_json(const nlohmann::json& json, LayerReport& layer) {
  layer.name = json.at("name");
  layer.rows = json.at("shape").at(0);
  layer.cols = json.at("shape").at(1);
  layer.nm = json.at("nm").is_null() ? "" : json.at("nm").get<std::string>();
  layer.nominal_bits = json.at("nominal_bits");
  layer.stored_bits = json.at("stored_bits");
  layer.salient_share = json.at("salient_share");
  layer.region_shares = json.at("region_shares").get<std::vector<double>>();
  layer.integer_bits = json.value("integer_bits", 0);  // results without integers may lack it
  layer.damping = json.at("damping");
  if (!json.at("error").is_null()) layer.error = json.at("error").get<double>();
}

}  // namespace billm
