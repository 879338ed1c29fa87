// `billm distill`: a packed model -> distilled (learn/distill.h) -> a packed model of the same
// size.
#include "billm/pipeline/distill_model.h"

#include <ATen/core/grad_mode.h>

#include <map>
#include <optional>
#include <string>
#include <utility>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/base/json_text.h"
#include "billm/base/log.h"
#include "billm/base/memory.h"
#include "billm/base/progress.h"
#include "billm/base/sha256.h"
#include "billm/checkpoint/json.h"
#include "billm/learn/distill.h"
#include "billm/model/model.h"
#include "billm/model/model_bits.h"
#include "billm/model/runtime.h"
#include "billm/report/report.h"
#include "block_shard.h"
#include "factor_counts.h"
#include "model_digest.h"
#include "output_directory.h"
#include "packed_model_writer.h"
#include "training_journal.h"

namespace billm {
namespace {

void check_pair(const DistillRequest& request, const Model& packed, const Model& original) {
  if (packed.packed() == nullptr) {
    throw bad_input(request.model.string() + ": is not a packed model",
                    "give the directory that billm quantize wrote");
  }
  if (original.packed() != nullptr) {
    throw bad_input(request.original.string() + ": is quantized already",
                    "give --original the checkpoint from which --model was quantized");
  }
}

nlohmann::ordered_json read_json(const std::filesystem::path& path) {
  return parse_ordered_json(read_text_file(path));
}

// The packed model's manifest, found to hold what will be needed of it after the training.
nlohmann::ordered_json read_manifest(const DistillRequest& request, const Model& original) {
  const std::filesystem::path path = request.model / "manifest.json";
  nlohmann::ordered_json manifest;
  std::string made_from;
  try {
    manifest = read_json(path);
    made_from = manifest.at("settings").at("model_digest").get<std::string>();
    manifest.at("stored_bits").get<double>();
    manifest.at("nominal_bits").get<double>();
    if (!manifest.at("layers").is_array()) throw bad_input(path.string() + ": layers: no array");
    for (const nlohmann::ordered_json& layer : manifest.at("layers")) {
      layer.at("name").get<std::string>();
    }
  } catch (const nlohmann::json::exception& error) {
    throw bad_input(path.string() + ": expected the report of billm quantize: " + error.what(),
                    "quantize the model again");
  }
  if (!is_digest_of(made_from, original.checkpoint(), request.threads, path.string())) {
    throw bad_input(request.original.string() + ": is not the model that " +
                        request.model.string() + " was quantized from",
                    "give --original the same checkpoint");
  }
  return manifest;
}

void check_memory(const Model& packed, const DistillConfig& config, c10::Device device) {
  const DistillBytes bytes = distill_bytes(factor_counts(*packed.packed()).latents, config);
  const int64_t needed = bytes.host + (device.is_cpu() ? bytes.device : 0);
  const int64_t available = available_memory();
  if (available == 0 || needed <= available) return;  // 0: not known
  char text[160];
  std::snprintf(text, sizeof(text),
                "distilling %.1f billion weights needs about %.1f GB of memory, %.1f GB are free",
                static_cast<double>(quantized_weights(packed.spec())) / 1e9,
                static_cast<double>(needed) / 1e9, static_cast<double>(available) / 1e9);
  throw Error(ErrorCode::kFailure, text, "use --tune of billm quantize: one block at a time");
}

std::vector<DistilledBlock> load_blocks(const Model& packed, const Model& original,
                                        bool codes_learn, int threads, c10::Device device) {
  const ModelSpec& spec = packed.spec();
  std::vector<DistilledBlock> blocks(static_cast<size_t>(spec.blocks()));
  for (int64_t b = 0; b < spec.blocks(); ++b) {
    DistilledBlock& block = blocks[static_cast<size_t>(b)];
    block.block = load_block_vectors(packed.weights(), spec, b, device);
    block.types = norm_types(packed.checkpoint(), spec, b);
    for (const LinearSpec& linear : spec.family->linears) {
      const std::string module = spec.module(b, linear);
      if (!packed.packed()->has(module)) {  // it was left as it is
        block.block.set_weight(linear.suffix,
                               to_device(packed.weights().linear(module, threads), device));
        continue;
      }
      TunedLinear& loaded = block.linears[linear.suffix];
      if (codes_learn) loaded.original = original.weights().linear(module, threads);
      loaded.codes = unpack(packed.packed()->open(module));
    }
  }
  return blocks;
}

nlohmann::ordered_json settings_of(const DistillRequest& request) {
  const DistillConfig& config = request.config;
  nlohmann::ordered_json json = {{"steps", config.steps},
                                 {"window", config.window},
                                 {"batch", config.batch},
                                 {"code_rate", config.code_rate},
                                 {"scale_rate", config.scale_rate},
                                 {"norm_rate", config.norm_rate},
                                 {"margin", config.margin},
                                 {"seed", config.seed},
                                 {"calibration", request.calibration_source},
                                 {"calibration_digest", tokens_digest(request.calibration)},
                                 {"nsamples", request.calibration.rows},
                                 {"seqlen", request.calibration.cols}};
  if (!request.calibration_parts.empty()) json["calibration_parts"] = request.calibration_parts;
  return json;
}

}  // namespace

DistillReport distill_model(const DistillRequest& request) {
  init_torch();
  const at::NoGradGuard no_grad;
  const c10::Device device = resolve_device(request.device);
  const int threads = device.is_cpu() ? request.threads : 1;
  const Model packed(request.model, request.threads);
  const Model original(request.original, request.threads);
  check_pair(request, packed, original);
  using Existing = OutputDirectory::Existing;
  OutputDirectory directory(request.out,
                            request.resume && request.overwrite ? Existing::kResumeOverwrite
                            : request.resume                    ? Existing::kResume
                            : request.overwrite                 ? Existing::kOverwrite
                                                                : Existing::kRefuse,
                            {request.model, request.original});
  const ModelSpec& spec = packed.spec();
  check_length(spec, std::min(request.config.window, request.calibration.cols));
  nlohmann::ordered_json head = read_manifest(request, original);
  head.erase("files");
  head.erase("sinks");  // of weights that are learned now
  nlohmann::ordered_json settings = settings_of(request);
  settings["packed_digest"] = sha256_file(request.model / "manifest.json");
  settings["billm_version"] = BILLM_VERSION;
  settings["device"] = device.is_cpu() ? "cpu" : "cuda";
  TrainingJournal journal(directory.partial(), settings);
  const std::optional<TrainingState> resumed =
      request.resume ? journal.read() : std::optional<TrainingState>();
  if (request.resume && !resumed) {
    log_warning("--resume: no step was stored before: starting from the first");
  }
  check_memory(packed, request.config, device);
  std::vector<DistilledBlock> blocks =
      load_blocks(packed, original, request.config.code_rate > 0, request.threads, device);
  FinalLayers last = load_final_layers(packed.weights(), spec, device);

  DistillReport report;
  Progress progress("distill", request.config.steps, request.quiet);
  if (resumed) {
    report.resumed_step = resumed->step;
    progress.skip(resumed->step);
  }
  const auto step = [&](int number, double loss, const std::function<TrainingState()>& state) {
    char text[64];
    std::snprintf(text, sizeof(text), "step %d: KL %.4f", number, loss);
    progress.step(text);
    if (!journal.due()) return;
    journal.write(state());
    directory.keep();
  };
  const std::string final_norm = spec.final_norm() + ".weight";
  const bool has_final_norm = last.norm.defined();
  const at::ScalarType final_type =
      has_final_norm ? scalar_type(packed.checkpoint().tensor(final_norm).dtype) : at::kFloat;
  DistillResult distilled = distill(original.weights(), original.spec(), request.calibration,
                                    request.config, final_type, threads, device, step,
                                    resumed ? &*resumed : nullptr, journal.where(), &blocks, &last);
  report.tune = distilled.tune;
  report.losses = std::move(distilled.losses);

  const PackedModelWriter writer(packed, directory);
  std::vector<WrittenFile> shards;
  std::map<std::string, nlohmann::ordered_json> learned;  // reports by module
  for (int64_t b = 0; b < spec.blocks(); ++b) {
    const DistilledBlock& block = blocks[static_cast<size_t>(b)];
    BlockShard shard;
    for (const LinearSpec& linear : spec.family->linears) {
      const auto found = block.linears.find(linear.suffix);
      if (found == block.linears.end()) continue;
      const LayerCodes& codes = found->second.codes;
      learned[spec.module(b, linear)] = report_codes(codes, request.threads);
      shard.add(spec.module(b, linear), pack(codes, request.threads));
    }
    shard.add_norms(block.block, spec, b, packed.checkpoint());
    shards.push_back(writer.write_block(b, shard));
  }
  head["distill"] = settings_of(request);
  head["distill"]["loss_before"] = report.tune.loss_before;
  head["distill"]["loss_after"] = report.tune.loss_after;
  head["distill"]["best_step"] = report.tune.best_step;
  for (nlohmann::ordered_json& layer : head.at("layers")) {
    const auto report = learned.find(layer.at("name").get<std::string>());
    if (report == learned.end()) continue;
    layer["error"] = nullptr;  // was measured under Hessians that are gone
    for (const char* key : {"salient_share", "region_shares", "factors"}) {
      if (report->second.contains(key)) layer[key] = report->second.at(key);
    }
  }
  report.output = directory.out();
  report.stored_bits = head.at("stored_bits");
  report.nominal_bits = head.at("nominal_bits");
  PackedModelHead result = {read_json(request.model / "config.json"), std::move(head), {}, {}};
  if (has_final_norm) result.replaced[final_norm] = last.norm;
  report.file_bits = file_bits(writer.finish(shards, std::move(result)), parameters(packed));
  report.peak_rss_bytes = peak_rss_bytes();
  return report;
}

}  // namespace billm
