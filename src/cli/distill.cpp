// billm distill.
#include <cstdio>
#include <memory>
#include <utility>

#include "billm/base/error.h"
#include "billm/hub/model_name.h"
#include "billm/pipeline/distill_model.h"
#include "calibration.h"
#include "command.h"
#include "common.h"
#include "estimate_text.h"

namespace billm {
namespace {

struct Options {
  CommonOptions common;
  CalibrationOptions calibration;
  std::string model, original, out, device = "auto";
  DistillConfig config;
  bool overwrite = false, resume = false, dry_run = false;
};

// --dry-run: nothing is read but the packed model's headers and, for its size, a calibration .npy.
void print_needs(const Options& options) {
  DistillRequest request;
  request.model = model_or_newest(options.model, options.common.quiet);
  request.config = options.config;
  request.device = options.device;
  request.threads = options.common.resolved_threads();
  const CalibrationSize size = options.calibration.size();
  const DistillEstimate estimate = estimate_distill(request, size.sequences, size.length);
  if (options.common.print()) {
    print_estimate(estimate, request.config, request.threads, size.parts);
  }
  nlohmann::ordered_json json = estimate_json(estimate);
  if (!size.parts.empty()) json["calibration_parts"] = size.parts;
  options.common.write_json(json);
}

void run(const Options& options) {
  options.common.check_json();
  if (options.dry_run) return print_needs(options);
  DistillRequest request;
  request.model = model_or_newest(options.model, options.common.quiet);
  request.original = resolve_model(options.original, ModelPart::kAll, options.common.quiet);
  request.out = options.out.empty()
                    ? new_result_path(directory_name(request.model) + "-distilled", options.resume)
                    : std::filesystem::path(options.out);
  if (!options.out.empty() && std::filesystem::exists(options.out) && !options.overwrite) {
    throw Error(ErrorCode::kUsage, "--out " + options.out + ": exists already",
                "choose another directory, or replace it with --overwrite");
  }
  request.config = options.config;
  request.config.seed = options.calibration.seed;
  Calibration calibration = options.calibration.tokens(request.model, options.common.quiet);
  request.calibration = std::move(calibration.tokens);
  request.calibration_parts = std::move(calibration.parts);
  request.calibration_source = options.calibration.source();
  request.device = options.device;
  request.threads = options.common.resolved_threads();
  request.overwrite = options.overwrite;
  request.resume = options.resume;
  request.quiet = options.common.quiet;
  const DistillReport report = distill_model(request);
  if (options.common.print()) {
    std::printf("output        %s\n", report.output.c_str());
    std::printf("stored bits   %.4f   (as before: distillation adds none)\n", report.stored_bits);
    std::printf("file bits     %.4f   (the whole file, for each parameter)\n", report.file_bits);
    std::printf("KL held out   %.4f -> %.4f nats per token%s\n", report.tune.loss_before,
                report.tune.loss_after,
                report.tune.best_step == 0 ? "   (no gain: the weights are as before)" : "");
    std::printf("seconds       %.1f\n", report.tune.seconds);
    std::printf("peak memory   %.0f MB\n", static_cast<double>(report.peak_rss_bytes) / 1e6);
  }
  nlohmann::ordered_json json = {{"output", report.output.string()},
                                 {"model", request.model.string()},
                                 {"nominal_bits", report.nominal_bits},
                                 {"stored_bits", report.stored_bits},
                                 {"file_bits", report.file_bits},
                                 {"losses", report.losses},
                                 {"resumed_step", report.resumed_step},
                                 {"peak_rss_bytes", report.peak_rss_bytes},
                                 {"distill", report.tune}};
  if (!request.calibration_parts.empty()) json["calibration_parts"] = request.calibration_parts;
  options.common.write_json(json);
  set_newest_result(report.output);
}

}  // namespace

std::function<void()> setup_distill(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("-m,--model", options->model, "Packed model (default: the newest result)")
      ->type_name("DIR");
  app.add_option("--original", options->original,
                 "The checkpoint that it was quantized from: directory, alias or hub id")
      ->required()
      ->type_name("DIR|ALIAS");
  app.add_option("-o,--out", options->out,
                 "Result directory (default: $BILLM_HOME/results/<model>-distilled)")
      ->type_name("DIR");
  app.add_flag("--overwrite", options->overwrite, "Replace an existing --out");
  app.add_flag("--resume", options->resume,
               "Go on with an unfinished run of the same settings, to the same bytes");
  app.add_flag("--dry-run", options->dry_run, "Print needed time, memory and disk space; no run");
  app.add_option("--device", options->device, "auto, cpu or cuda")->capture_default_str();
  options->calibration.add_to(app);
  const std::string training = "Training";
  DistillConfig& config = options->config;
  app.add_option("--steps", config.steps, "Steps of Adam")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20))
      ->group(training);
  app.add_option("--window", config.window, "Tokens of a window")
      ->capture_default_str()
      ->check(CLI::Range(2, 1 << 20))
      ->group(training);
  app.add_option("--batch", config.batch, "Windows of a step")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 16))
      ->group(training);
  app.add_option("--code-rate", config.code_rate,
                 "Step size of the codes' latents, in units of the mean scale (0: codes stay)")
      ->capture_default_str()
      ->check(learning_rate())
      ->group(training);
  app.add_option("--scale-rate", config.scale_rate, "Step size of the scales, relative")
      ->capture_default_str()
      ->check(learning_rate())
      ->group(training);
  app.add_option("--norm-rate", config.norm_rate, "Step size of the norm weights, relative")
      ->capture_default_str()
      ->check(learning_rate())
      ->group(training);
  options->common.add_to(app);
  app.footer(
      "Teaches a packed model the original's next-token distribution on the calibration text. It\n"
      "adds no stored bits. Memory: about 5 bytes per quantized weight, 17 where codes learn.\n"
      "Example:\n  billm distill --model ./result --original ./SmolLM2-135M --nsamples 16");
  return [options] { run(*options); };
}

}  // namespace billm
