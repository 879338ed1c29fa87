// billm quantize.
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "billm/base/error.h"
#include "billm/base/json_text.h"
#include "billm/checkpoint/json.h"
#include "billm/hub/model_name.h"
#include "billm/pipeline/estimate.h"
#include "billm/pipeline/process_group.h"
#include "billm/pipeline/quantize_model.h"
#include "billm/quantize/allocate_bits.h"
#include "billm/quantize/methods.h"
#include "calibration.h"
#include "command.h"
#include "common.h"
#include "estimate_text.h"
#include "setting_flags.h"

namespace billm {
namespace {

struct Options {
  CommonOptions common;
  CalibrationOptions calibration;
  std::string model, out, method = "billm", plan, device = "auto";
  SettingFlags settings;  // of the method
  TuneConfig tune;
  std::optional<double> tune_code_rate;  // none: that of the targets
  EmbeddingBits embedding_bits;
  std::optional<double> target_bits;
  size_t tune_settings = 0;  // how many flags of tuning were given besides --tune
  bool tuned = false, sequential = false, overwrite = false, resume = false, dry_run = false;
};

std::optional<TuneConfig> tune_config(const Options& options, Targets targets) {
  TuneConfig tune = options.tune;
  if (!options.tuned) {
    if (options.tune_settings > 0) {
      throw Error(ErrorCode::kUsage, "--tune-steps and its like: expected with --tune only");
    }
    return {};
  }
  if (targets == Targets::kCorrected) tune.code_rate = kCorrectedCodeRate;
  if (options.tune_code_rate) tune.code_rate = *options.tune_code_rate;
  tune.seed = options.calibration.seed;
  return tune;
}

// With --target-bits at the rate from which bits are shared out.
MethodConfig method_config(const Options& options) {
  MethodConfig config = configure(options.method, options.settings.given());
  if (!options.target_bits) return config;
  if (options.settings.has("bits")) {
    throw Error(ErrorCode::kUsage, "--target-bits: cannot go with --bits",
                "--bits is the rate of all layers, --target-bits the mean of rates that differ");
  }
  config.bits = base_rate(config, *options.target_bits);
  check_config(config);
  return config;
}

// --plan. The order of the patterns matters, which strict parsing does not keep.
nlohmann::ordered_json read_plan_file(const std::string& path) {
  if (path.empty()) return nullptr;
  const std::string text = read_input(path);
  parse_json_object(text, path);
  return parse_ordered_json(text);
}

// Of each kind of linear, how many layers have which rate: "q_proj 0.75 x 25, 1 x 5".
void print_rates(const QuantizeReport& report) {
  std::vector<std::string> kinds;  // in the order of a block
  std::map<std::string, std::map<double, int>> rates;
  for (const LayerReport& layer : report.layers) {
    const auto planned = report.plan.find(layer.name);
    if (planned == report.plan.end() || !planned->second.contains("bits")) continue;
    const std::string kind = layer.name.substr(layer.name.rfind('.') + 1);
    if (rates.count(kind) == 0) kinds.push_back(kind);
    ++rates[kind][planned->second.at("bits").get<double>()];
  }
  for (const std::string& kind : kinds) {
    std::string text;
    for (const auto& [rate, layers] : rates.at(kind)) {
      char part[48];
      std::snprintf(part, sizeof(part), "%s%g x %d", text.empty() ? "" : ", ", rate, layers);
      text += part;
    }
    std::printf("bits          %-9s %s\n", kind.c_str(), text.c_str());
  }
}

void print_report(const QuantizeReport& report) {
  const auto megabytes = [](int64_t bytes) { return static_cast<double>(bytes) / 1e6; };
  std::printf("output        %s\n", report.output.c_str());
  std::printf("method        %s\n", report.method.c_str());
  std::printf("nominal bits  %.4f\n", report.nominal_bits);
  std::printf("stored bits   %.4f   (everything counted: codes, maps, scales, padding)\n",
              report.stored_bits);
  std::printf("file bits     %.4f   (the whole file, for each of its %.1f million parameters)\n",
              report.file_bits, static_cast<double>(report.parameters) / 1e6);
  for (const IntegerRowsReport& rows : report.integer_rows) {
    std::printf("%-13s %d bits, stored %.4f, error %.2e\n", rows.name.c_str(), rows.bits,
                rows.stored_bits, rows.error);
  }
  std::printf("size          %.1f MB -> %.1f MB   (%s)\n", megabytes(report.bytes_before),
              megabytes(report.bytes_after),
              report.integer_rows.empty() ? "embeddings and norms stay as they are"
                                          : "norms stay as they are");
  if (!report.tune.empty()) {
    double before = 0, after = 0;
    for (const TuneReport& tune : report.tune) {
      before += tune.loss_before / static_cast<double>(report.tune.size());
      after += tune.loss_after / static_cast<double>(report.tune.size());
    }
    std::printf("tuning        held-out loss %.4f -> %.4f, mean over the blocks\n", before, after);
  }
  if (report.target_bits) print_rates(report);
  const QuantizeSeconds& seconds = report.seconds;
  if (seconds.plan > 0) {
    std::printf(
        "planning      %.1f s of the total: a uniform result, and where its error comes from\n",
        seconds.plan);
  }
  std::printf(
      "seconds       forward %.1f, hessian %.1f, quantize %.1f, tune %.1f, pack %.1f, total %.1f\n",
      seconds.forward, seconds.hessian, seconds.quantize, seconds.tune, seconds.pack,
      seconds.total);
  std::printf("peak memory   %.0f MB\n", megabytes(report.peak_rss_bytes));
}

// --dry-run: nothing is read but config.json and, for its size, a calibration .npy.
void print_needs(const Options& options) {
  EstimateRequest request;
  request.method = method_config(options);
  request.target_bits = options.target_bits;
  request.tune = tune_config(options, request.method.targets);
  request.sequential = options.sequential || request.method.targets == Targets::kCorrected;
  const std::filesystem::path path =
      resolve_model(options.model, ModelPart::kConfig, options.common.quiet) / "config.json";
  request.model = read_config(path);
  request.where = path.string();
  if (!request.model.quantization_config.is_null()) {
    throw bad_input(request.where + ": quantization_config: expected none",
                    "give the original checkpoint, not a quantized one");
  }
  const CalibrationSize size = options.calibration.size();
  request.sequences = size.sequences;
  request.length = size.length;
  request.plan = read_plan_file(options.plan);
  request.plan_source = options.plan;
  request.embedding_bits = options.embedding_bits;
  request.device = options.device;
  request.threads = options.common.resolved_threads();
  const Estimate estimate = estimate_quantize(request);
  if (options.common.print()) print_estimate(estimate, request, size.parts);
  nlohmann::ordered_json json = estimate_json(estimate);
  if (!size.parts.empty()) json["calibration_parts"] = size.parts;
  options.common.write_json(json);
}

void quantize(const Options& options, ProcessGroup& processes) {
  QuantizeRequest request;
  request.method = method_config(options);
  request.target_bits = options.target_bits;
  request.plan = read_plan_file(options.plan);
  request.plan_source = options.plan;
  request.tune = tune_config(options, request.method.targets);
  const bool quiet = options.common.quiet || !processes.first();
  request.model = resolve_model(options.model, ModelPart::kAll, quiet);
  std::string stem = model_label(options.model, request.model) + "-" + request.method.method;
  if (request.method.nm.active()) {
    stem += "-" + std::to_string(request.method.nm.n) + "of" + std::to_string(request.method.nm.m);
  }
  if (options.settings.has("bits")) {
    stem += "-" + dump_json(setting_json(find_setting("bits"), request.method)) + "bit";
  }
  if (options.target_bits) stem += "-" + dump_json(nlohmann::json(*options.target_bits)) + "bit";
  if (!options.plan.empty()) stem += "-" + std::filesystem::path(options.plan).stem().string();
  if (processes.first()) {
    request.out = options.out.empty() ? new_result_path(stem, options.resume)
                                      : std::filesystem::path(options.out);
    if (!options.out.empty() && std::filesystem::exists(options.out) && !options.overwrite) {
      throw Error(ErrorCode::kUsage, "--out " + options.out + ": exists already",
                  "choose another directory, or replace it with --overwrite");
    }
  }
  request.out = processes.broadcast_text(0, request.out.string());
  Calibration calibration = options.calibration.tokens(request.model, quiet);
  request.calibration = std::move(calibration.tokens);
  request.calibration_parts = std::move(calibration.parts);
  request.calibration_source = options.calibration.source();
  request.embedding_bits = options.embedding_bits;
  request.seed = options.calibration.seed;
  request.device = options.device;
  request.threads = options.common.resolved_threads();
  if (options.common.threads == 0) {
    request.threads = std::max(1, request.threads / local_processes());
  }
  request.sequential = options.sequential;
  request.overwrite = options.overwrite;
  request.resume = options.resume;
  request.quiet = quiet;
  const QuantizeReport report = quantize_model(request, processes);
  if (!processes.first()) return;
  if (options.common.print()) print_report(report);
  options.common.write_json(report);
  set_newest_result(report.output);
}

void run(const Options& options) {
  options.common.check_json();
  if (options.dry_run) return print_needs(options);
  const auto processes = ProcessGroup::from_environment(options.common.quiet);
  try {
    quantize(options, *processes);
  } catch (const std::exception& error) {
    processes->fail(error.what());
    throw;
  }
}

}  // namespace

std::function<void()> setup_quantize(CLI::App& app) {
  auto options = std::make_shared<Options>();
  std::string methods_help = "Method:";
  for (const Method& method : methods()) {
    methods_help += std::string("\n  ") + method.name + ": " + method.summary;
  }
  app.add_option("-m,--model", options->model,
                 "HuggingFace directory, alias (llama2-7b, mistral-7b, demo ...) or hub id "
                 "org/name[@revision]; what is missing from the HuggingFace cache is downloaded")
      ->required()
      ->type_name("DIR|ALIAS");
  app.add_option("--method", options->method, methods_help)->capture_default_str();
  options->settings.add_to(app, false, "Options");
  app.add_option("--target-bits", options->target_bits,
                 "Stored bits of a weight in the mean, everything counted: the rates of the layers "
                 "follow from a uniform result that is made first and from where its error comes "
                 "(twice the time; trellis, dbf, gptq, rtn)")
      ->type_name("X");
  app.add_option(
         "--plan", options->plan,
         "JSON file with what single layers have in place of these settings: {PATTERN: "
         "{\"method\": NAME, \"bits\": X, ...}}, the last pattern that matches a layer's name "
         "(*, ?, []) holds; \"bits\": 16 leaves layers as they are")
      ->type_name("FILE");
  app.add_option("-o,--out", options->out,
                 "Result directory (default: $BILLM_HOME/results/<model>-<method>)")
      ->type_name("DIR");
  app.add_flag("--overwrite", options->overwrite, "Replace an existing --out");
  app.add_flag("--resume", options->resume, "Go on with an interrupted run of the same settings");
  app.add_flag(
      "--dry-run", options->dry_run,
      "Only say what a run would need: memory, disk, output size and stored bits, time, and "
      "where the hidden states of the calibration text are kept (in memory if they take at "
      "most a quarter of what is free)");
  app.add_flag(
      "--sequential", options->sequential,
      "Calibrate q/k/v, o, gate/up, down in turn, each on already quantized inputs (corrected "
      "targets always do)");
  app.add_option(
         "--embedding-bits", options->embedding_bits.embedding,
         "What the embeddings are stored in: 16 (as they are), or integers of 8 bits with a "
         "scale a row, or of 4 bits with one for 32 columns; a tied head with them")
      ->capture_default_str()
      ->check(CLI::IsMember({16, 8, 4}));
  app.add_option("--head-bits", options->embedding_bits.head,
                 "The same of an output head that is not the embedding (default 16)")
      ->check(CLI::IsMember({16, 8, 4}));
  app.add_option(
         "--device", options->device,
         "auto, cpu or cuda (forward passes, Hessians and their factors, reported errors; the "
         "codes of billm, stbllm, arb and pbllm in blocks of up to 512 columns)")
      ->capture_default_str();

  const std::string tuning = "Tuning (no stored bits; the largest gain in quality)";
  TuneConfig& tune = options->tune;
  app.add_flag("--tune", options->tuned,
               "Learn codes, scales and norms of each block against the original block's output")
      ->group(tuning);
  app.add_option("--tune-steps", tune.steps, "Steps of Adam per block")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20))
      ->group(tuning);
  app.add_option("--tune-window", tune.window, "Tokens of a window, after their context")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20))
      ->group(tuning);
  app.add_option("--tune-batch", tune.batch, "Windows of a step")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 16))
      ->group(tuning);
  app.add_option(
         "--tune-code-rate", options->tune_code_rate,
         "Step size of the codes' latents, in units of the mean scale (0: codes stay; default " +
             dump_json(nlohmann::json(tune.code_rate)) + ", with corrected targets " +
             dump_json(nlohmann::json(kCorrectedCodeRate)) + ")")
      ->check(learning_rate())
      ->group(tuning);
  app.add_option("--tune-scale-rate", tune.scale_rate, "Step size of the scales, relative")
      ->capture_default_str()
      ->check(learning_rate())
      ->group(tuning);
  app.add_option("--tune-norm-rate", tune.norm_rate, "Step size of the norm weights, relative")
      ->capture_default_str()
      ->check(learning_rate())
      ->group(tuning);

  options->calibration.add_to(app);
  options->settings.add_to(app, true, "Ablations and comparison");
  options->common.add_to(app);
  app.footer(
      "Examples:\n"
      "  billm quantize --model llama2-7b --method stbllm --nm 4:8\n"
      "  billm quantize --model ./SmolLM2-135M --method billm --calib notes.txt --nsamples 16 "
      "--seqlen 512 --out small");
  return [options, tuning, &app] {
    for (const CLI::Option* option : app.get_options()) {
      if (option->get_group() == tuning && option->get_name() != "--tune") {
        options->tune_settings += option->count();
      }
    }
    run(*options);
  };
}

}  // namespace billm
