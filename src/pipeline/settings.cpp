// See settings.h.
#include "settings.h"

#include "billm/model/runtime.h"
#include "billm/quantize/methods.h"
#include "billm/quantize/settings.h"
#include "kernels/cpu/dense.h"

namespace billm {
namespace {

nlohmann::ordered_json tune_json(const TuneConfig& tune) {
  return {{"steps", tune.steps},           {"window", tune.window},
          {"batch", tune.batch},           {"code_rate", tune.code_rate},
          {"scale_rate", tune.scale_rate}, {"norm_rate", tune.norm_rate},
          {"margin", tune.margin},         {"seed", tune.seed}};
}

bool same_on_every_cpu(const QuantizeRequest& request) {
  if (request.method.targets == Targets::kCorrected) return false;
  if (!find_method(request.method.method).same_on_every_cpu) return false;
  for (const auto& [pattern, settings] : request.plan.items()) {
    if (!settings.is_object() || !settings.contains("method")) continue;
    if (!find_method(settings.at("method").get<std::string>()).same_on_every_cpu) return false;
  }
  return true;
}

}  // namespace

nlohmann::ordered_json settings_json(const QuantizeRequest& request,
                                     const std::string& model_digest) {
  std::string name = std::filesystem::absolute(request.model).lexically_normal().filename();
  if (name.empty()) {
    name = std::filesystem::absolute(request.model).lexically_normal().parent_path().filename();
  }
  nlohmann::ordered_json json = {
      {"billm_version", BILLM_VERSION},
      {"device", resolve_device(request.device).is_cpu() ? "cpu" : "cuda"},
      {"model", name},
      {"model_digest", model_digest},
      {"method", request.method.method}};
  json.update(config_json(request.method));
  json.update(nlohmann::ordered_json{
      {"sequential", request.is_sequential()},
      {"tune", request.tune ? tune_json(*request.tune) : nlohmann::ordered_json(nullptr)},
      {"calibration", request.calibration_source},
      {"calibration_digest", tokens_digest(request.calibration)},
      {"nsamples", request.calibration.rows},
      {"seqlen", request.calibration.cols},
      {"seed", request.seed}});
  // Named only where they are not as always.
  if (!request.plan.is_null()) json["plan"] = request.plan;
  if (request.target_bits) json["target_bits"] = *request.target_bits;
  if (request.embedding_bits.embedding != kAsItIs) {
    json["embedding_bits"] = request.embedding_bits.embedding;
  }
  if (request.embedding_bits.head_bits() != kAsItIs) {
    json["head_bits"] = request.embedding_bits.head_bits();
  }
  if (!request.calibration_parts.empty()) json["calibration_parts"] = request.calibration_parts;
  if (!same_on_every_cpu(request)) {
    json["cpu"] = kernels::dense_kind();
  }
  return json;
}

}  // namespace billm
