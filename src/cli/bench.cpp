// billm bench.
#include "billm/bench/bench.h"

#include <cstdio>
#include <memory>
#include <optional>

#include "billm/base/error.h"
#include "billm/bench/encode.h"
#include "billm/model/running_device.h"
#include "billm/model/runtime.h"
#include "command.h"
#include "common.h"
#include "kernels/cpu/targets.h"
#include "layer_report.h"

namespace billm {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  CommonOptions common;
  std::string model, device = "auto";
  std::vector<std::string> layers, shapes = {"4096x4096"};
  std::vector<int64_t> batches = {1};
  bool skip_layers = false, skip_model = false, skip_dense = false, no_graph = false;
  bool encode = false;
  int64_t prompt = 512, generate = 128, cold = 512;
  int repetitions = 5, run_head_bits = 8;
};

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options), threads_(options.common.resolved_threads()) {}

  void run() {
    options_.common.check_json();
    if (options_.encode) return measure_encoder();
    (void)bench_shapes(options_.shapes);
    // Before anything is measured: whether there is such a device and such a model, and whether it
    // can run there.
    (void)resolve_device(options_.device);
    if (!options_.skip_model) model_ = model_or_newest(options_.model, options_.common.quiet);
    const c10::Device device = common_device();
    on_cpu_ = device.is_cpu();
    device_ = make_bench_device(device, threads_);
    if (options_.common.print()) {
      std::printf("threads       %d\ndevice        %s\nmemory        %.1f GB/s (%s)\n", threads_,
                  device_->name().c_str(), device_->bandwidth() / 1e9,
                  on_cpu_ ? "reading 1 GB" : "by its clock and width");
    }
    report_ = {{"threads", threads_},
               {"device", on_cpu_ ? "cpu" : "cuda"},
               {"device_name", device_->name()},
               {"memory_bytes_per_second", device_->bandwidth()}};
    if (!options_.skip_layers) {
      LayerReportOptions layers;
      layers.layers = options_.layers;
      layers.shapes = options_.shapes;
      layers.batches = options_.batches;
      layers.repetitions = options_.repetitions;
      layers.cold_bytes = options_.cold << 20;
      report_["layers"] = report_layers(layers, *device_, options_.common.print());
    }
    if (model_) bench_model_of(*model_);
    options_.common.write_json(report_);
  }

 private:
  void measure_encoder() {
    report_ = {{"instructions", kernels::best_target()}, {"encode", Json::array()}};
    if (options_.common.print()) {
      std::printf("trellis encoder, one thread, %s: ns a weight and plane\n",
                  kernels::best_target().c_str());
    }
    for (const EncodeBench& row : bench_encode(options_.repetitions)) {
      report_["encode"].push_back(
          {{"bits_of_four", row.rate}, {"seconds", row.seconds}, {"seconds_fastest", row.fastest}});
      if (!options_.common.print()) continue;
      std::printf("%.2f bits      %.2f (best %.2f)\n", row.rate / 4.0, 1e9 * row.seconds,
                  1e9 * row.fastest);
    }
    options_.common.write_json(report_);
  }

  // All is measured on one device, which must have the kernels, also for the model.
  c10::Device common_device() const {
    if (model_) {
      const Checkpoint checkpoint(*model_);
      if (is_packed_model(checkpoint)) {
        return resolve_running_device(options_.device, PackedModules(checkpoint));
      }
    }
    return resolve_device(options_.device, DeviceUse::kKernels);
  }

  void bench_model_of(const std::filesystem::path& model) {
    ModelBenchRequest request;
    request.model = model;
    request.prompt = options_.prompt;
    request.generate = options_.generate;
    request.threads = threads_;
    request.repetitions = options_.repetitions;
    request.device = on_cpu_ ? "cpu" : "cuda";
    request.run_head_bits = options_.run_head_bits;
    request.graphs = !options_.no_graph;
    request.quiet = options_.common.quiet;
    if (options_.common.print()) std::printf("\nmodel         %s\n", model.c_str());
    report_["model"] = model.string();
    const ModelBench packed = bench_model(request);
    const bool is_packed = packed.stored_bits > 0;
    print_model(is_packed ? "packed" : "fp32", packed);
    report_[is_packed ? "packed" : "dense_fp32"] = to_json(packed);
    if (options_.skip_dense || !is_packed) return;
    const double dense_bytes = 4 * static_cast<double>(packed.linear_weights);
    if (dense_bytes > device_->memory_bytes() / 2) {
      if (options_.common.print()) {
        std::printf(
            "fp32          not measured: its weights would take %.0f GB, more than half of "
            "the device's memory\n",
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
      if (device_->bandwidth() > 0) {
        std::printf(" (%.0f %% of the memory's)", 100 * rate * token_bytes / device_->bandwidth());
      }
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
      if (device_->bandwidth() > 0) {
        json["decode"]["bandwidth_share"] = rate * bytes / device_->bandwidth();
      }
    }
    return json;
  }

  const Options& options_;
  const int threads_;
  std::optional<std::filesystem::path> model_;
  bool on_cpu_ = true;
  std::unique_ptr<BenchDevice> device_;
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
  app.add_option("--shape", options->shapes,
                 "Shapes of the layers, or a list of them (" + bench_shape_lists() + ")")
      ->capture_default_str()
      ->type_name("ROWSxCOLS|LIST");
  app.add_option("--batch", options->batches, "Tokens multiplied together")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str()
      ->type_name("N");
  app.add_option("--cold", options->cold,
                 "Copies of a layer are used in turn, so many MB in all: more than caches hold")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str()
      ->type_name("MB");
  app.add_flag("--skip-layers", options->skip_layers, "Only the model");
  app.add_flag("--skip-model", options->skip_model, "Only single layers");
  CLI::Option* const encode = app.add_flag(
      "--encode", options->encode,
      "Only the search of trellis codes: ns a weight and plane, one thread of the CPU");
  app.add_flag("--skip-dense", options->skip_dense,
               "Leave out the same model decoded to fp32, of which the rest is compared");
  app.add_option("--run-head-bits", options->run_head_bits,
                 "How the output head of a packed model is run: 8 (from integers), or 32 for fp32")
      ->check(CLI::IsMember({8, 32}))
      ->capture_default_str();
  app.add_option("--device", options->device,
                 "auto, cpu or cuda; on a GPU layers are compared with fp16 by cuBLAS")
      ->capture_default_str();
  app.add_flag("--no-graph", options->no_graph,
               "On a GPU: launch a token's kernels one by one, not as a CUDA graph");
  options->common.add_to(app);
  app.footer(
      "Layers have random codes. The model's tokens are random; every repetition begins with an "
      "empty context.\n"
      "Examples:\n"
      "  billm bench --skip-model --layer billm stbllm --shape 4096x4096 11008x4096 --batch 1 8\n"
      "  billm bench --device cuda --skip-model --shape llama --batch 1 4 8 512 1024 2048\n"
      "  billm bench --model ./result --skip-layers -p 512 -n 128 --json bench.json\n"
      "  billm bench --encode");
  for (CLI::Option* option : app.get_options()) {
    const std::string name = option->get_name();
    const bool used = name == "--repetitions" || name == "--json" || name == "--quiet" ||
                      name == "--help" || option == encode;
    if (!used) encode->excludes(option);
  }
  return [options] { Bench(*options).run(); };
}

}  // namespace billm
