// See include/billm/bench/bench.h.
#include "billm/bench/bench.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <c10/core/InferenceMode.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <random>

#include "bench_layers.h"
#include "billm/base/error.h"
#include "billm/base/progress.h"
#include "billm/base/stopwatch.h"
#include "billm/base/worker_team.h"
#include "billm/generate/generator.h"
#include "billm/model/cuda_kernels.h"
#include "billm/model/linear_operator.h"
#include "billm/model/runtime.h"

namespace billm {
namespace {

// Seconds of one call, for each repetition: as many calls as there are copies.
template <typename Call>
std::vector<double> times(int repetitions, int64_t copies, const Call& call) {
  std::vector<double> seconds;
  for (int64_t i = 0; i < copies; ++i) call(i);  // pages, threads
  for (int repetition = 0; repetition < repetitions; ++repetition) {
    const Stopwatch watch;
    for (int64_t i = 0; i < copies; ++i) call(i);
    seconds.push_back(watch.seconds() / static_cast<double>(copies));
  }
  return seconds;
}

}  // namespace

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double LayerBench::bytes_per_second() const {
  return seconds > 0 ? static_cast<double>(run_bytes) / seconds : 0;
}

double memory_bandwidth(int threads) {
  constexpr int64_t kBytes = int64_t{1} << 30;
  constexpr int kPasses = 5;
  std::vector<uint64_t> buffer(static_cast<size_t>(kBytes / 8), 1);
  WorkerTeam team(threads);
  std::vector<uint64_t> sums(static_cast<size_t>(team.size()) * 8);  // a cache line each
  double fastest = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    const Stopwatch watch;
    team.run([&](int worker) {
      const size_t first =
          buffer.size() * static_cast<size_t>(worker) / static_cast<size_t>(team.size());
      const size_t end =
          buffer.size() * static_cast<size_t>(worker + 1) / static_cast<size_t>(team.size());
      constexpr size_t kAhead = 512;  // numbers, 4 KB
      uint64_t sum = 0;
      for (size_t i = first; i < end; ++i) {
        if (i % 8 == 0) __builtin_prefetch(buffer.data() + std::min(i + kAhead, buffer.size() - 1));
        sum += buffer[i];
      }
      sums[static_cast<size_t>(worker) * 8] += sum;
    });
    fastest = std::max(fastest, static_cast<double>(kBytes) / watch.seconds());
  }
  uint64_t total = 0;
  for (const uint64_t sum : sums) total += sum;
  if (total != static_cast<uint64_t>(kPasses) * buffer.size()) {
    throw Error(ErrorCode::kFailure, "memory benchmark: a wrong sum");
  }
  return fastest;
}

namespace {

class CpuBench : public BenchDevice {
 public:
  explicit CpuBench(int threads) : threads_(threads), bandwidth_(memory_bandwidth(threads)) {}

  std::string name() const override { return "cpu"; }
  double bandwidth() const override { return bandwidth_; }
  double memory_bytes() const override {
    return static_cast<double>(sysconf(_SC_PHYS_PAGES)) *
           static_cast<double>(sysconf(_SC_PAGESIZE));
  }
  std::string baseline() const override { return "fp32"; }
  std::vector<LayerBench> measure(const LayerBenchRequest& request) override;

 private:
  const int threads_;
  const double bandwidth_;
};

std::vector<LayerBench> CpuBench::measure(const LayerBenchRequest& request) {
  init_torch();
  const c10::InferenceMode inference;
  CpuRunner runner(threads_);
  LayerBench row;
  std::vector<std::unique_ptr<LinearOperator>> copies;
  {
    const PackedPlanes packed = pack(random_bench_layer(request.layer, request.rows, request.cols));
    row.stored_bits = 8.0 * static_cast<double>(packed.bytes()) /
                      static_cast<double>(request.rows * request.cols);
    copies = runner.make_copies(packed, request.cold_bytes);
  }
  row.copies = static_cast<int64_t>(copies.size());
  row.run_bytes = copies[0]->bytes();
  row.run_bits =
      8 * static_cast<double>(row.run_bytes) / static_cast<double>(request.rows * request.cols);
  std::vector<LayerBench> result;
  for (const int64_t tokens : request.tokens) {
    row.tokens = tokens;
    const at::Tensor x = at::randn({tokens, request.cols});
    const std::vector<double> seconds = times(request.repetitions, row.copies, [&](int64_t i) {
      copies[static_cast<size_t>(i)]->apply(x);
    });
    row.seconds = median(seconds);
    row.fastest = *std::min_element(seconds.begin(), seconds.end());
    result.push_back(row);
  }
  copies.clear();

  const int64_t dense_bytes = 4 * request.rows * request.cols;
  const int64_t dense_copies = (request.cold_bytes + dense_bytes - 1) / dense_bytes;
  const at::Tensor dense = at::randn({request.rows, request.cols});
  std::vector<at::Tensor> dense_weights = {dense};
  while (static_cast<int64_t>(dense_weights.size()) < dense_copies) {
    dense_weights.push_back(dense.clone());
  }
  const int threads = at::get_num_threads();
  at::set_num_threads(threads_);
  for (LayerBench& each : result) {
    const at::Tensor x = at::randn({each.tokens, request.cols});
    each.dense_copies = dense_copies;
    each.dense_seconds = median(times(request.repetitions, dense_copies, [&](int64_t i) {
      at::mm(x, dense_weights[static_cast<size_t>(i)].t());
    }));
  }
  at::set_num_threads(threads);
  return result;
}

}  // namespace

std::unique_ptr<BenchDevice> make_bench_device(c10::Device device, int threads) {
  if (device.is_cpu()) return std::make_unique<CpuBench>(threads);
  return make_cuda_bench(cuda_kernels(), device.has_index() ? device.index() : 0, threads);
}

ModelBench bench_model(const ModelBenchRequest& request) {
  ModelBench result;
  GeneratorRequest generator_request;
  generator_request.model = request.model;
  generator_request.context = std::max<int64_t>({1, request.prompt, request.generate});
  generator_request.context_flags = "-p and -n";
  generator_request.threads = request.threads;
  generator_request.device = request.device;
  generator_request.run_head_bits = request.run_head_bits;
  generator_request.run_packed = request.run_packed;
  generator_request.graphs = request.graphs;
  generator_request.quiet = request.quiet;
  const Stopwatch load;
  Generator generator(generator_request);
  result.load_seconds = load.seconds();
  result.linear_bytes = generator.linear_bytes();
  result.head_bytes = generator.head_bytes();
  result.stored_bits = generator.stored_bits();
  result.linear_weights = generator.linear_weights();
  std::mt19937 random(1);
  const auto token = [&] {
    return static_cast<int32_t>(random() % static_cast<uint32_t>(generator.vocab()));
  };
  std::vector<int32_t> prompt(static_cast<size_t>(request.prompt));
  for (int32_t& id : prompt) id = token();
  Progress progress("bench", 2 * (request.repetitions + 1), request.quiet);
  for (int repetition = -1; repetition < request.repetitions; ++repetition) {  // -1 warms up
    if (request.prompt > 0) {
      generator.truncate(0);
      const Stopwatch watch;
      generator.append(prompt);
      if (repetition >= 0) {
        result.prompt_rates.push_back(static_cast<double>(request.prompt) / watch.seconds());
      }
    }
    progress.step();
    if (request.generate > 0) {
      generator.truncate(0);
      const Stopwatch watch;
      for (int64_t i = 0; i < request.generate; ++i) {
        const int32_t id = token();
        generator.append({&id, 1});
      }
      if (repetition >= 0) {
        result.generate_rates.push_back(static_cast<double>(request.generate) / watch.seconds());
      }
    }
    progress.step();
  }
  return result;
}

}  // namespace billm
