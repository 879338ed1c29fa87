// billm bench.
#include "billm/eval/bench.h"

#include <unistd.h>

#include <cstdio>
#include <memory>
#include <optional>

#include "billm/base/error.h"
#include "billm/model/runtime.h"
#include "command.h"
#include "common.h"

namespace billm {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  CommonOptions common;
  std::string model, device = "auto";
  std::vector<std::string> layers, shapes = {"4096x4096"};
  std::vector<int64_t> batches = {1};
  bool skip_layers = false, skip_model = false, skip_dense = false;
  int64_t prompt = 512, generate = 128, rotation = 512;
  int repetitions = 5, head_bits = 8;
};

struct Shape {
  int64_t rows, cols;
};

// "ROWSxCOLS"
Shape parse_shape(const std::string& text) {
  Shape shape{};
  int used = 0;
  long rows = 0, cols = 0;
  constexpr long kMost = 1 << 20, kMostWeights = 1l << 30;
  if (std::sscanf(text.c_str(), "%ldx%ld%n", &rows, &cols, &used) != 2 ||
      used != static_cast<int>(text.size()) || rows < 1 || cols < 1 || rows > kMost ||
      cols > kMost || rows * cols > kMostWeights) {
    throw Error(ErrorCode::kUsage, "--shape: expected ROWSxCOLS like 11008x4096, got " + text);
  }
  shape.rows = rows;
  shape.cols = cols;
  return shape;
}

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options), threads_(options.common.resolved_threads()) {}

  void run() {
    options_.common.check_json();
    std::vector<Shape> shapes;
    for (const std::string& text : options_.shapes) shapes.push_back(parse_shape(text));
    if (!options_.skip_model) {  // before anything is measured: whether there are such
      (void)resolve_device(options_.device);
      model_ = model_or_newest(options_.model, options_.common.quiet);
    }
    bandwidth_ = memory_bandwidth(threads_);
    if (options_.common.print()) {
      std::printf("threads       %d\nmemory        %.1f GB/s (reading 1 GB)\n", threads_,
                  bandwidth_ / 1e9);
    }
    report_ = {{"threads", threads_}, {"memory_bytes_per_second", bandwidth_}};
    if (!options_.skip_layers) bench_layers_of(shapes);
    if (model_) bench_model_of(*model_);
    options_.common.write_json(report_);
  }

 private:
  void bench_layers_of(const std::vector<Shape>& shapes) {
    std::vector<std::string> names = options_.layers;
    if (names.empty()) {
      for (const BenchLayer& layer : bench_layers()) names.push_back(layer.name);
    }
    if (options_.common.print()) {
      std::printf(
          "\nlayer    rows x cols    batch  stored  in use  microseconds   GB/s  share  "
          "against fp32\n");
    }
    report_["layers"] = Json::array();
    for (const Shape& shape : shapes) {
      for (const std::string& name : names) {
        for (const int64_t batch : options_.batches) bench_one(name, shape, batch);
      }
    }
    if (options_.common.print()) {
      std::printf(
          "stored, in use: bits per weight in the file, and read for a product. share: of "
          "the memory's bandwidth.\n");
    }
  }

  void bench_one(const std::string& name, const Shape& shape, int64_t batch) {
    LayerBenchRequest request;
    request.layer = name;
    request.rows = shape.rows;
    request.cols = shape.cols;
    request.tokens = batch;
    request.threads = threads_;
    request.repetitions = options_.repetitions;
    request.rotation_bytes = options_.rotation << 20;
    const LayerBench result = bench_layer(request);
    const double share = result.bytes_per_second() / bandwidth_;
    const double speedup = result.dense_seconds / result.seconds;
    if (options_.common.print()) {
      const std::string size = std::to_string(shape.rows) + " x " + std::to_string(shape.cols);
      std::printf("%-8s %-14s %5ld  %6.3f  %6.3f  %12.1f  %5.1f  %4.0f %%  %.1fx\n", name.c_str(),
                  size.c_str(), static_cast<long>(batch), result.stored_bits, result.run_bits,
                  result.seconds * 1e6, result.bytes_per_second() / 1e9, 100 * share, speedup);
      flush_stdout();
    }
    report_["layers"].push_back({{"layer", name},
                                 {"rows", shape.rows},
                                 {"cols", shape.cols},
                                 {"batch", batch},
                                 {"stored_bits", result.stored_bits},
                                 {"run_bits", result.run_bits},
                                 {"copies", result.copies},
                                 {"seconds", result.seconds},
                                 {"seconds_fastest", result.fastest},
                                 {"bytes_per_second", result.bytes_per_second()},
                                 {"bandwidth_share", share},
                                 {"dense_fp32_seconds", result.dense_seconds}});
  }

  void bench_model_of(const std::filesystem::path& model) {
    ModelBenchRequest request;
    request.model = model;
    request.prompt = options_.prompt;
    request.generate = options_.generate;
    request.threads = threads_;
    request.repetitions = options_.repetitions;
    request.device = options_.device;
    request.head_bits = options_.head_bits;
    request.quiet = options_.common.quiet;
    if (options_.common.print()) std::printf("\nmodel         %s\n", model.c_str());
    report_["model"] = model.string();
    const ModelBench packed = bench_model(request);
    on_cpu_ = packed.on_cpu;
    request.device = on_cpu_ ? "cpu" : "cuda";  // both on the same one
    report_["device"] = on_cpu_ ? "cpu" : "cuda";
    const bool is_packed = packed.stored_bits > 0;
    print_model(is_packed ? "packed" : "fp32", packed);
    report_[is_packed ? "packed" : "dense_fp32"] = to_json(packed);
    if (options_.skip_dense || !is_packed) return;
    const double dense_bytes = 4 * static_cast<double>(packed.linear_weights);
    const double memory =
        static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
    if (dense_bytes > memory / 2) {
      if (options_.common.print()) {
        std::printf(
            "fp32          not measured: its weights would take %.0f GB, more than half of "
            "this machine's memory\n",
            dense_bytes / 1e9);
      }
      return;
    }
    request.run_packed = false;
    const ModelBench dense = bench_model(request);
    print_model("fp32", dense);
    report_["dense_fp32"] = to_json(dense);
  }

  void print_model(const char* name, const ModelBench& result) const {
    if (!options_.common.print()) return;
    const double token_bytes = static_cast<double>(result.linear_bytes + result.head_bytes);
    if (!result.prompt_rates.empty()) {
      std::printf("%-13s prefill of %ld tokens  %.1f tokens/s\n", name,
                  static_cast<long>(options_.prompt), median(result.prompt_rates));
    }
    if (!result.generate_rates.empty()) {
      const double rate = median(result.generate_rates);
      std::printf("%-13s decode of %ld tokens   %.1f tokens/s, %.1f GB/s", name,
                  static_cast<long>(options_.generate), rate, rate * token_bytes / 1e9);
      if (on_cpu_) std::printf(" (%.0f %% of the memory's)", 100 * rate * token_bytes / bandwidth_);
      std::printf("\n");
    }
    std::printf("%-13s per token: linears %.1f MB, head %.1f MB; load %.1f s\n", name,
                static_cast<double>(result.linear_bytes) / 1e6,
                static_cast<double>(result.head_bytes) / 1e6, result.load_seconds);
  }

  Json to_json(const ModelBench& result) const {
    Json json = {{"stored_bits", result.stored_bits},
                 {"linear_bytes", result.linear_bytes},
                 {"head_bytes", result.head_bytes},
                 {"load_seconds", result.load_seconds}};
    if (!result.prompt_rates.empty()) {
      json["prefill"] = {{"tokens", options_.prompt},
                         {"tokens_per_second", median(result.prompt_rates)},
                         {"repetitions", result.prompt_rates}};
    }
    if (!result.generate_rates.empty()) {
      const double rate = median(result.generate_rates);
      const double bytes = static_cast<double>(result.linear_bytes + result.head_bytes);
      json["decode"] = {{"tokens", options_.generate},
                        {"tokens_per_second", rate},
                        {"bytes_per_second", rate * bytes},
                        {"repetitions", result.generate_rates}};
      if (on_cpu_) json["decode"]["bandwidth_share"] = rate * bytes / bandwidth_;
    }
    return json;
  }

  const Options& options_;
  const int threads_;
  std::optional<std::filesystem::path> model_;
  double bandwidth_ = 0;  // of the host's memory
  bool on_cpu_ = true;    // the model runs there
  Json report_;
};

}  // namespace

std::function<void()> setup_bench(CLI::App& app) {
  auto options = std::make_shared<Options>();
  std::string names;
  for (const BenchLayer& layer : bench_layers()) {
    names += std::string(names.empty() ? "" : ", ") + layer.name;
  }
  app.add_option("-m,--model", options->model,
                 "Packed or dense model: directory, alias or hub id (default: the newest result)")
      ->type_name("DIR|ALIAS");
  app.add_option("-p,--n-prompt", options->prompt, "Tokens of the prompt; 0: no prefill")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str()
      ->type_name("N");
  app.add_option("-n,--n-gen", options->generate, "Tokens generated; 0: no decode")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str()
      ->type_name("N");
  app.add_option("-r,--repetitions", options->repetitions, "Repetitions; the median is printed")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str()
      ->type_name("N");
  app.add_option("--layer", options->layers, "Kinds of layers: " + names + " (default: all)")
      ->type_name("NAME");
  app.add_option("--shape", options->shapes, "Shapes of the layers")
      ->capture_default_str()
      ->type_name("ROWSxCOLS");
  app.add_option("--batch", options->batches, "Tokens multiplied together")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str()
      ->type_name("N");
  app.add_option("--rotate", options->rotation,
                 "Copies of a layer are used in turn, so many MB in all: more than caches hold")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str()
      ->type_name("MB");
  app.add_flag("--skip-layers", options->skip_layers, "Only the model");
  app.add_flag("--skip-model", options->skip_model, "Only single layers");
  app.add_flag("--skip-dense", options->skip_dense,
               "Leave out the same model decoded to fp32, of which the rest is compared");
  app.add_option("--head-bits", options->head_bits,
                 "Output head of a packed model: 8, or 32 for fp32")
      ->check(CLI::IsMember({8, 32}))
      ->capture_default_str();
  app.add_option("--device", options->device, "auto, cpu or cuda (of the model)")
      ->capture_default_str();
  options->common.add_to(app);
  app.footer(
      "Layers have random codes. The model's tokens are random; every repetition begins with an "
      "empty context.\n"
      "Examples:\n"
      "  billm bench --skip-model --layer billm stbllm --shape 4096x4096 11008x4096 --batch 1 8\n"
      "  billm bench --model ./result --skip-layers -p 512 -n 128 --json bench.json");
  return [options] { Bench(*options).run(); };
}

}  // namespace billm
