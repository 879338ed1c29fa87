// See settings.h.
#include "settings.h"

#include "billm/base/sha256.h"
#include "billm/model/runtime.h"
#include "billm/quantize/methods.h"

namespace billm {
namespace {

const char* feedback_name(Feedback feedback) {
  switch (feedback) {
    case Feedback::kColumns:
      return "columns";
    case Feedback::kBlocks:
      return "blocks";
    case Feedback::kNone:
      return "none";
  }
  return "?";
}

nlohmann::ordered_json tune_json(const TuneConfig& tune) {
  return {{"steps", tune.steps},           {"window", tune.window},
          {"batch", tune.batch},           {"code_rate", tune.code_rate},
          {"scale_rate", tune.scale_rate}, {"norm_rate", tune.norm_rate},
          {"margin", tune.margin},         {"seed", tune.seed}};
}

}  // namespace

std::string tokens_digest(const TokenMatrix& tokens) {
  Sha256 hash;
  hash.update(std::to_string(tokens.rows) + "x" + std::to_string(tokens.cols) + ";");
  hash.update(std::as_bytes(std::span(tokens.values)));
  return hash.hex();
}

nlohmann::ordered_json settings_json(const QuantizeRequest& request,
                                     const std::string& model_digest) {
  const MethodConfig& method = request.method;
  const MagnitudeClasses classes = classes_of(method);
  const Method& row = find_method(method.method);
  using json = nlohmann::ordered_json;
  std::string name = std::filesystem::absolute(request.model).lexically_normal().filename();
  if (name.empty()) {
    name = std::filesystem::absolute(request.model).lexically_normal().parent_path().filename();
  }
  return {
      {"billm_version", BILLM_VERSION},
      {"device", resolve_device(request.device).is_cpu() ? "cpu" : "cuda"},
      {"model", name},
      {"model_digest", model_digest},
      {"method", method.method},
      {"compat", method.reference ? "reference" : "none"},
      {"nm", method.nm.active() ? nlohmann::ordered_json(method.nm.text())
                                : nlohmann::ordered_json(nullptr)},
      {"nm_alloc", method.nm_alloc},
      {"block_size", method.block_size},
      {"scale_format", scale_format_name(method.scale_format)},
      {"offsets", offset_kind_name(method.offset_kind)},
      {"feedback", feedback_name(method.feedback)},
      {"objective", method.objective == SearchObjective::kWeights ? "weights" : "saliency"},
      {"refine_rounds", method.refine_rounds},
      {"descend", method.descend},
      {"classes", classes.ordinary},  // 0: the method has none
      {"salient_classes", classes.salient},
      {"column_rounds", method.column_rounds},
      {"max_salient", method.max_salient},
      {"bits", row.max_bits > 0 ? json(bits_of(method)) : json(nullptr)},
      {"act_order", row.has_order ? json(method.act_order) : json(nullptr)},
      {"salient", row.has_share ? json(salient_share_of(method)) : json(nullptr)},
      {"salient_metric", !row.has_share                                       ? json(nullptr)
                         : method.salient_metric == SalientMetric::kMagnitude ? json("magnitude")
                                                                              : json("hessian")},
      {"damping", method.damping},
      {"sequential", request.sequential},
      {"tune", request.tune ? tune_json(*request.tune) : nlohmann::ordered_json(nullptr)},
      {"calibration", request.calibration_source},
      {"calibration_digest", tokens_digest(request.calibration)},
      {"nsamples", request.calibration.rows},
      {"seqlen", request.calibration.cols},
      {"seed", request.seed}};
}

}  // namespace billm
