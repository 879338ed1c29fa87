// `billm distill`: a packed model -> distilled (tune/distill.h) -> a packed model of the same size.
#include "billm/pipeline/distill_model.h"

#include <ATen/core/grad_mode.h>

#include <set>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/base/memory.h"
#include "billm/base/progress.h"
#include "billm/checkpoint/json.h"
#include "billm/model/model.h"
#include "billm/model/runtime.h"
#include "billm/tune/distill.h"
#include "block_shard.h"
#include "output_directory.h"
#include "result_files.h"
#include "settings.h"

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

// The packed model's manifest, found to hold what will be needed of it after the training.
nlohmann::ordered_json read_manifest(const DistillRequest& request, const Model& original) {
  const std::filesystem::path path = request.model / "manifest.json";
  nlohmann::ordered_json manifest;
  std::string made_from;
  try {
    manifest = nlohmann::ordered_json::parse(read_text_file(path));
    made_from = manifest.at("settings").at("model_digest").get<std::string>();
    manifest.at("stored_bits").get<double>();
    manifest.at("nominal_bits").get<double>();
    if (!manifest.at("layers").is_array()) throw bad_input(path.string() + ": layers: no array");
  } catch (const nlohmann::json::exception& error) {
    throw bad_input(path.string() + ": expected the report of billm quantize: " + error.what(),
                    "quantize the model again");
  }
  if (made_from != source_digest(original.checkpoint(), request.threads)) {
    throw bad_input(request.original.string() + ": is not the model that " +
                        request.model.string() + " was quantized from",
                    "give --original the same checkpoint");
  }
  return manifest;
}

void check_memory(const ModelSpec& spec) {
  int64_t weights = 0;
  for (const LinearSpec& linear : spec.family->linears) {
    weights += spec.blocks() * linear.out_width(spec.config) * linear.in_width(spec.config);
  }
  const int64_t needed = distill_bytes(weights), available = available_memory();
  if (available == 0 || needed <= available) return;  // 0: not known
  char text[160];
  std::snprintf(text, sizeof(text),
                "distilling %.1f billion weights needs about %.1f GB of memory, %.1f GB are free",
                static_cast<double>(weights) / 1e9, static_cast<double>(needed) / 1e9,
                static_cast<double>(available) / 1e9);
  throw Error(ErrorCode::kFailure, text, "use --tune of billm quantize: one block at a time");
}

std::vector<DistilledBlock> load_blocks(const Model& packed, const Model& original, int threads,
                                        c10::Device device) {
  const ModelSpec& spec = packed.spec();
  std::vector<DistilledBlock> blocks(static_cast<size_t>(spec.blocks()));
  for (int64_t b = 0; b < spec.blocks(); ++b) {
    DistilledBlock& block = blocks[static_cast<size_t>(b)];
    block.block = load_block_vectors(packed.weights(), spec, b, device);
    block.types = norm_types(packed.checkpoint(), spec, b);
    for (const LinearSpec& linear : spec.family->linears) {
      const std::string module = spec.module(b, linear);
      if (!packed.packed()->has(module)) {
        throw bad_input(packed.checkpoint().directory().string() + ": " + module +
                        ": expected a packed module");
      }
      block.linears[linear.suffix] = {original.weights().linear(module, threads),
                                      unpack(packed.packed()->open(module)).regions()};
    }
  }
  return blocks;
}

nlohmann::ordered_json settings_of(const DistillRequest& request) {
  const DistillConfig& config = request.config;
  return {{"steps", config.steps},
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
                            request.overwrite ? Existing::kOverwrite : Existing::kRefuse,
                            {request.model, request.original});
  const ModelSpec& spec = packed.spec();
  check_length(spec, std::min(request.config.window, request.calibration.cols));
  nlohmann::ordered_json head = read_manifest(request, original);
  head.erase("files");
  check_memory(spec);
  std::vector<DistilledBlock> blocks = load_blocks(packed, original, request.threads, device);
  FinalLayers last = load_final_layers(packed.weights(), spec, device);

  DistillReport report;
  Progress progress("distill", request.config.steps, request.quiet);
  const auto step = [&](int number, double loss) {
    report.losses.push_back(loss);
    char text[64];
    std::snprintf(text, sizeof(text), "step %d: KL %.4f", number, loss);
    progress.step(text);
  };
  const std::string final_norm = spec.final_norm() + ".weight";
  const bool has_final_norm = last.norm.defined();
  const at::ScalarType final_type =
      has_final_norm ? scalar_type(packed.checkpoint().tensor(final_norm).dtype) : at::kFloat;
  report.tune = distill(original.weights(), original.spec(), request.calibration, request.config,
                        final_type, threads, device, step, &blocks, &last);

  const std::filesystem::path partial = directory.partial();
  std::vector<WrittenFile> files;
  std::vector<std::string> shards;
  std::set<std::string> modules, norms;
  for (int64_t b = 0; b < spec.blocks(); ++b) {
    const DistilledBlock& block = blocks[static_cast<size_t>(b)];
    BlockShard shard;
    for (const LinearSpec& linear : spec.family->linears) {
      const std::string module = spec.module(b, linear);
      shard.add(module, pack(block.linears.at(linear.suffix).codes, request.threads));
      modules.insert(module);
    }
    shard.add_norms(block.block, spec, b, packed.checkpoint());
    for (const std::string& name : norm_names(spec, b)) norms.insert(name);
    files.push_back(shard.write(partial, shard_name(b, spec.blocks() + 1)));
    shards.push_back(files.back().name);
  }
  shards.push_back(shard_name(spec.blocks(), spec.blocks() + 1));
  std::set<std::string> written = norms;
  for (const std::string& tensor : packed.checkpoint().names()) {
    if (!packed.packed()->module_of(tensor).empty()) written.insert(tensor);
  }
  std::map<std::string, at::Tensor> replaced;
  if (has_final_norm) replaced[final_norm] = last.norm;
  files.push_back(write_rest(packed.checkpoint(), written, replaced, partial, shards.back()));
  write_index(partial, shards);
  std::vector<std::string> names = copy_side_files(request.model, partial);
  write_file_atomic(partial / "config.json", MappedFile(request.model / "config.json").bytes());
  names.insert(names.end(), {"config.json", "model.safetensors.index.json"});
  for (const std::string& name : names) files.push_back(written_file(partial, name));
  head["distill"] = settings_of(request);
  head["distill"]["loss_before"] = report.tune.loss_before;
  head["distill"]["loss_after"] = report.tune.loss_after;
  head["distill"]["best_step"] = report.tune.best_step;
  // Measured under Hessians that are gone, on weights that have changed.
  for (nlohmann::ordered_json& layer : head.at("layers")) layer["error"] = nullptr;
  write_manifest(partial, head, files);
  directory.finish();
  report.output = directory.out();
  report.stored_bits = head.at("stored_bits");
  report.nominal_bits = head.at("nominal_bits");
  report.peak_rss_bytes = peak_rss_bytes();
  return report;
}

}  // namespace billm
