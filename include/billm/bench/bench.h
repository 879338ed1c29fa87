// How fast packed layers and whole models run on this machine.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace billm {

namespace kernels::cuda {
struct CudaApi;
}

// The kinds of layers that are measured: what the methods write by default.
struct BenchLayer {
  const char* name;
  const char* method;  // flags of `billm quantize` that give such layers
};
std::span<const BenchLayer> bench_layers();

struct LayerBenchRequest {
  std::string layer;  // BenchLayer::name
  int64_t rows = 4096, cols = 4096;
  std::vector<int64_t> tokens = {1};  // that are multiplied together: each number is measured
  int repetitions = 5;
  // Copies of the layer are used in turn until this many bytes are passed: more than caches hold.
  int64_t cold_bytes = int64_t{512} << 20;
};

struct LayerBench {
  int64_t tokens = 0;
  double stored_bits = 0, run_bits = 0;  // per weight: of the file, and read from memory
  int64_t run_bytes = 0;
  int64_t copies = 0, dense_copies = 0;
  double seconds = 0;        // one product, median of the repetitions, input preparation included
  double fastest = 0;        // the best repetition
  double dense_seconds = 0;  // the same with the baseline, copies in turn too; 0: there is none
  double bytes_per_second() const;
};

// A device on which single layers are measured.
class BenchDevice {
 public:
  virtual ~BenchDevice() = default;
  virtual std::string name() const = 0;  // "cpu", or what the GPU is called
  // Bytes per second of its memory: the CPU's is measured (memory_bandwidth), a GPU tells its own;
  // 0: not known.
  virtual double bandwidth() const = 0;
  virtual double memory_bytes() const = 0;
  // The dense product that a layer is compared with: "fp32" by ATen, "fp16" by cuBLAS.
  virtual std::string baseline() const = 0;
  // Random codes of a fixed seed; one row for each number of tokens. Throws Error{kUsage} for a
  // layer that is not in the table, Error{kFailure} for what goes wrong on the device.
  virtual std::vector<LayerBench> measure(const LayerBenchRequest& request) = 0;
};

// Measures the CPU's memory at once. `threads`: of the CPU; for a GPU, those that prepare layers.
std::unique_ptr<BenchDevice> make_bench_device(c10::Device device, int threads);

// A GPU through `api`, which must outlive the result. Times are between two events of a stream: of
// a graph of products with each copy of the layer, for up to 8 tokens; else of as many products in
// a queue. x and y are fp16.
std::unique_ptr<BenchDevice> make_cuda_bench(const kernels::cuda::CudaApi& api, int index,
                                             int threads);

// Bytes per second at which `threads` threads read memory: the best of some passes over a buffer
// of 1 GB. Others use the memory too, so a kernel measured later may find more.
double memory_bandwidth(int threads);

struct ModelBenchRequest {
  std::filesystem::path model;
  int64_t prompt = 512, generate = 128;  // tokens; 0: not measured
  int threads = 1;
  int repetitions = 5;
  std::string device = "auto";
  int run_head_bits = 8;
  bool graphs = true;      // GeneratorRequest's
  bool run_packed = true;  // false: layers are decoded to fp32 when the model is loaded
  bool quiet = true;
};

struct ModelBench {
  // Tokens per second of every repetition; empty if not measured.
  std::vector<double> prompt_rates, generate_rates;
  int64_t linear_bytes = 0, head_bytes = 0;  // read for a token
  int64_t linear_weights = 0;                // of the blocks
  double stored_bits = 0;                    // of the packed linears; 0 for a dense model
  double load_seconds = 0;
};
// Random tokens: what they are does not matter for the time. As llama-bench: prompt and generation
// are measured each from an empty context.
ModelBench bench_model(const ModelBenchRequest& request);

double median(std::vector<double> values);  // of at least one

}  // namespace billm
