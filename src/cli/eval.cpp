// billm eval.
#include <cstdio>
#include <map>
#include <memory>

#include "billm/base/error.h"
#include "billm/checkpoint/config.h"
#include "billm/eval/perplexity.h"
#include "billm/hub/model_name.h"
#include "command.h"
#include "common.h"

namespace billm {
namespace {

struct Options {
  CommonOptions common;
  std::string model, ppl, kl, data_dir, device = "auto";
  std::string run_packed;  // a name of kRunPacked; empty: decoded
  int64_t windows = 0, seqlen = 0;
};

const std::map<std::string, RunPacked> kRunPacked = {
    {"", RunPacked::kNo}, {"decode", RunPacked::kDecode}, {"prefill", RunPacked::kPrefill}};

// 2048 as in the papers, or what the model can.
int64_t default_length(const std::filesystem::path& model) {
  const ModelConfig config = read_config(model / "config.json");
  return std::min<int64_t>(2048, config.max_position_embeddings);
}

TokenMatrix eval_windows(const Options& options, const TokenizedSource& source,
                         const std::filesystem::path& model) {
  if (source.is_matrix) {
    TokenMatrix matrix = source.matrix;
    if (options.windows > 0) matrix.rows = std::min(matrix.rows, options.windows);
    matrix.values.resize(static_cast<size_t>(matrix.rows * matrix.cols));
    return matrix;
  }
  const int64_t length = options.seqlen > 0 ? options.seqlen : default_length(model);
  const int64_t limit = options.windows > 0 ? options.windows : source.most_windows;
  return consecutive_windows(source.tokens, length, limit);
}

void run(const Options& options) {
  options.common.check_json();
  EvalRequest request;
  request.model = model_or_newest(options.model, options.common.quiet);
  if (!options.kl.empty())
    request.kl_model = resolve_model(options.kl, ModelPart::kAll, options.common.quiet);
  const TokenizedSource source = load_tokens({options.ppl, options.data_dir, TextSplit::kTest,
                                              request.model, TextOptions{0, options.common.quiet}});
  request.windows = eval_windows(options, source, request.model);
  request.threads = options.common.resolved_threads();
  request.device = options.device;
  request.run_packed = kRunPacked.at(options.run_packed);
  request.quiet = options.common.quiet;
  const EvalResult result = evaluate(request);
  const int64_t windows = request.windows.rows, length = request.windows.cols;
  if (options.common.print()) {
    std::printf("model         %s\n", request.model.c_str());
    std::printf("dataset       %s\n", source.description.c_str());
    if (!result.kernels.empty()) {
      std::printf("run packed    %s   (kernels: %s)\n",
                  request.run_packed == RunPacked::kDecode ? "token by token" : "a window at once",
                  result.kernels.c_str());
    }
    std::printf("perplexity    %.4f   (%ld windows of %ld tokens%s)\n", result.ppl,
                static_cast<long>(windows), static_cast<long>(length),
                windows == options.windows ? ", limited by --windows" : "");
    if (result.kl_mean) std::printf("KL(original)  %.6f nats per token\n", *result.kl_mean);
    if (result.stored_bits) {
      std::printf("stored bits   %.4f   (of the packed linears, for each of their weights)\n",
                  *result.stored_bits);
    }
    std::printf("file bits     %.4f   (the whole file, for each parameter)\n", result.file_bits);
    std::printf("seconds       %.1f\n", result.seconds);
    std::printf("peak memory   %.0f MB\n", static_cast<double>(result.peak_rss_bytes) / 1e6);
  }
  nlohmann::ordered_json json = {{"model", request.model.string()},
                                 {"dataset", options.ppl},
                                 {"dataset_description", source.description},
                                 {"text_sha256", source.sha256},
                                 {"ppl", result.ppl},
                                 {"windows", windows},
                                 {"tokens", windows * length},
                                 {"predictions", result.predictions},
                                 {"seqlen", length},
                                 {"file_bits", result.file_bits},
                                 {"window_nll", result.window_nll},
                                 {"seconds", result.seconds},
                                 {"peak_rss_bytes", result.peak_rss_bytes}};
  if (!result.kernels.empty()) {
    json["run_packed"] = options.run_packed;
    json["kernels"] = result.kernels;
  }
  if (result.stored_bits) json["stored_bits"] = *result.stored_bits;
  if (result.kl_mean) {
    json["kl_mean"] = *result.kl_mean;
    json["kl_model"] = request.kl_model->string();
  }
  options.common.write_json(json);
}

}  // namespace

std::function<void()> setup_eval(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("-m,--model", options->model,
                 "Packed or dense model: directory, alias or hub id (default: the newest result)")
      ->type_name("DIR|ALIAS");
  app.add_option("--ppl", options->ppl,
                 "Perplexity on wikitext2, c4, ptb, FILE.txt, or FILE.npy with token ids int32 "
                 "[sequences, length]")
      ->required()
      ->type_name("TEXT");
  app.add_option("--windows", options->windows, "Only the first N windows (default: all; c4: 256)")
      ->check(CLI::Range(1, 1 << 30))
      ->type_name("N");
  app.add_option("--seqlen", options->seqlen,
                 "Tokens per window (default 2048, or the model's limit; a .npy has its own)")
      ->check(CLI::Range(2, 1 << 20))
      ->type_name("L");
  app.add_option("--kl", options->kl, "Also the mean KL divergence to this original model")
      ->type_name("DIR|ALIAS");
  add_data_dir(app, options->data_dir, "Options");
  app.add_flag(
         "--run-packed{decode}", options->run_packed,
         "Run packed layers by the kernels of generate, which round inputs to 8 bits, instead "
         "of decoding them to fp32: one token at a time (decode), or as a prompt, a window at "
         "once (--run-packed=prefill); the output head is run in fp32")
      ->check(CLI::IsMember({"decode", "prefill"}))
      ->type_name("[=decode|prefill]");
  app.add_option("--device", options->device, "auto, cpu or cuda")->capture_default_str();
  options->common.add_to(app);
  app.footer(
      "The protocol is that of the GPTQ and BiLLM papers: the whole test split tokenized at once,\n"
      "non-overlapping windows, mean over all predictions. Packed models are decoded from the "
      "file.\n"
      "Examples:\n"
      "  billm eval --ppl wikitext2\n"
      "  billm eval --model ./result --ppl wikitext2 --windows 8 --kl ./original");
  return [options] { run(*options); };
}

}  // namespace billm
