// See include/billm/eval/bench.h.
#include "billm/eval/bench.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <memory>
#include <random>

#include "billm/base/error.h"
#include "billm/base/progress.h"
#include "billm/base/stopwatch.h"
#include "billm/base/worker_team.h"
#include "billm/eval/generator.h"
#include "billm/model/linear_operator.h"
#include "billm/model/runtime.h"

namespace billm {
namespace {

struct LayerRow {
  BenchLayer layer;
  int classes, salient_classes;
  NmPattern nm;
  int integer_bits;
  bool scattered;
  int block_size;
  bool column_scales;
};

// Shares as they are found in quantized models: 8 % of the columns salient, 10 % of the weights
// scattered integers (billm inspect).
constexpr uint32_t kSalientPercent = 8, kIntegerPercent = 10;
const LayerRow kRows[] = {
    {{"signs", "--method arb --classes 1"}, 1, 0, {}, 0, false, 4096, true},
    {{"billm", "--method billm"}, 2, 2, {}, 0, false, 128, false},
    {{"arb", "--method arb"}, 2, 2, {}, 0, false, 256, true},
    {{"stbllm", "--method stbllm --nm 4:8"}, 3, 3, {4, 8}, 0, false, 128, false},
    {{"pbllm", "--method pbllm"}, 1, 0, {}, 8, true, 128, false},
    {{"gptq2", "--method gptq --bits 2"}, 0, 0, {}, 2, false, 128, false},
};

// So many rows are random, the others repeat them.
constexpr int64_t kRandomRows = 64;

QuantizedLinear random_layer(const LayerRow& row, int64_t rows, int64_t cols) {
  LinearShape shape;
  shape.rows = rows;
  shape.cols = cols;
  shape.block_size = row.block_size;
  shape.nm = row.nm;
  shape.classes = row.classes;
  shape.salient_classes = row.salient_classes;
  shape.integer_bits = row.integer_bits;
  shape.scattered = row.scattered;
  shape.column_scales = row.column_scales;
  if (shape.all_integers()) shape.scale_format = ScaleFormat::kF16;
  std::mt19937 random(1);
  QuantizedLinear linear = make_quantized_linear(shape);
  for (uint8_t& salient : linear.salient) salient = random() % 100 < kSalientPercent;
  for (int64_t r = 0; r < std::min(rows, kRandomRows); ++r) {
    for (int64_t col = 0; col < cols; ++col) {
      const auto at = static_cast<size_t>(r * cols + col);
      if (shape.nm.active() && col % shape.nm.m >= shape.nm.n) continue;  // any N of M
      const bool salient = !linear.salient.empty() && linear.salient[static_cast<size_t>(col)] != 0;
      if (shape.integer_bits > 0 && (!shape.scattered || random() % 100 < kIntegerPercent)) {
        linear.region[at] = static_cast<uint8_t>(shape.integer_region());
        linear.code[at] = static_cast<uint8_t>(random() % (1u << shape.integer_bits));
        continue;
      }
      const int classes = salient ? shape.salient_classes : shape.classes;
      const auto t = static_cast<int>(random() % static_cast<uint32_t>(classes));
      linear.region[at] = static_cast<uint8_t>(1 + t + (salient ? shape.classes : 0));
      linear.code[at] = random() % 2;
    }
  }
  for (int64_t r = kRandomRows; r < rows; ++r) {
    const int64_t from = r % kRandomRows * cols;
    std::copy_n(linear.region.begin() + from, cols, linear.region.begin() + r * cols);
    std::copy_n(linear.code.begin() + from, cols, linear.code.begin() + r * cols);
  }
  linear.base = 1.0f;
  const auto code = [&] { return static_cast<uint8_t>(128 + random() % 64); };
  for (float& scale : linear.scale) scale = log8_decode(code(), linear.base);
  for (float& scale : linear.column_scale) scale = 1.0f;
  for (float& step : linear.step) step = 0.125f;
  for (uint8_t& zero : linear.zero) zero = static_cast<uint8_t>((1 << shape.integer_bits) / 2);
  return linear;
}

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

std::span<const BenchLayer> bench_layers() {
  static const std::vector<BenchLayer> layers = [] {
    std::vector<BenchLayer> result;
    for (const LayerRow& row : kRows) result.push_back(row.layer);
    return result;
  }();
  return layers;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double LayerBench::bytes_per_second() const {
  return seconds > 0 ? static_cast<double>(run_bytes) / seconds : 0;
}

LayerBench bench_layer(const LayerBenchRequest& request) {
  const auto row = std::find_if(std::begin(kRows), std::end(kRows), [&](const LayerRow& candidate) {
    return request.layer == candidate.layer.name;
  });
  if (row == std::end(kRows)) {
    std::string names;
    for (const LayerRow& each : kRows)
      names += std::string(names.empty() ? "" : ", ") + each.layer.name;
    throw Error(ErrorCode::kUsage, "layer: expected one of " + names + ", got " + request.layer);
  }
  init_torch();
  const c10::InferenceMode inference;
  CpuRunner runner(request.threads);
  LayerBench result;
  std::vector<std::unique_ptr<LinearOperator>> copies;
  {
    const PackedLinear packed = pack(random_layer(*row, request.rows, request.cols));
    result.stored_bits = packed.stored_bits();
    copies = runner.make_copies(packed, request.rotation_bytes);
  }
  result.copies = static_cast<int64_t>(copies.size());
  result.run_bytes = copies[0]->bytes();
  const auto weights = static_cast<double>(request.rows * request.cols);
  result.run_bits = 8 * static_cast<double>(result.run_bytes) / weights;
  const at::Tensor x = at::randn({request.tokens, request.cols});
  const std::vector<double> packed_times =
      times(request.repetitions, result.copies,
            [&](int64_t i) { copies[static_cast<size_t>(i)]->apply(x); });
  result.seconds = median(packed_times);
  result.fastest = *std::min_element(packed_times.begin(), packed_times.end());
  copies.clear();

  const int64_t dense_bytes = 4 * request.rows * request.cols;
  const int64_t dense_copies = (request.rotation_bytes + dense_bytes - 1) / dense_bytes;
  const at::Tensor dense = at::randn({request.rows, request.cols});
  std::vector<at::Tensor> dense_weights = {dense};
  while (static_cast<int64_t>(dense_weights.size()) < dense_copies) {
    dense_weights.push_back(dense.clone());
  }
  const int threads = at::get_num_threads();
  at::set_num_threads(request.threads);
  result.dense_seconds = median(times(request.repetitions, dense_copies, [&](int64_t i) {
    at::mm(x, dense_weights[static_cast<size_t>(i)].t());
  }));
  at::set_num_threads(threads);
  return result;
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

ModelBench bench_model(const ModelBenchRequest& request) {
  ModelBench result;
  GeneratorRequest generator_request;
  generator_request.model = request.model;
  generator_request.context = std::max<int64_t>({1, request.prompt, request.generate});
  generator_request.context_flags = "-p and -n";
  generator_request.threads = request.threads;
  generator_request.device = request.device;
  generator_request.head_bits = request.head_bits;
  generator_request.run_packed = request.run_packed;
  generator_request.quiet = request.quiet;
  const Stopwatch load;
  Generator generator(generator_request);
  result.load_seconds = load.seconds();
  result.on_cpu = generator.on_cpu();
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
