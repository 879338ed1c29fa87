// Single layers on a GPU: see include/billm/bench/bench.h.
#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <utility>

#include "bench_layers.h"
#include "billm/base/half.h"
#include "billm/base/log.h"
#include "billm/model/cuda_kernels.h"
#include "billm/pack/plane_tiles.h"
#include "kernels/cuda/launch.h"

namespace billm {
namespace {

using kernels::cuda::CudaApi;
using kernels::cuda::CudaDevice;
using kernels::cuda::CudaGemmPath;
using kernels::cuda::CudaGraph;
using kernels::cuda::CudaLayer;
using kernels::cuda::CudaMatrix;
using kernels::cuda::CudaProduct;
using kernels::cuda::CudaTimer;

// What one repetition takes at least, so that launching it and the events do not count.
constexpr double kSeconds = 0.02;
constexpr double kMostRounds = 1000;
// So many rows of a dense weight are random; the others repeat them.
constexpr int64_t kRandomRows = 64;
// A cache may keep what was read so long ago, in multiples of its size.
constexpr int64_t kCachesPassed = 2;

class Memory {
 public:
  Memory(const CudaApi& api, int64_t bytes) : api_(api) {
    check_cuda(api_.allocate(std::max<int64_t>(1, bytes), &data_));
  }
  ~Memory() { api_.release(data_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  void* data() const { return data_; }

 private:
  const CudaApi& api_;
  void* data_ = nullptr;
};

// A layer and its memory.
class Layer {
 public:
  Layer(const CudaApi& api, const kernels::PlaneTilesView& view, int64_t bytes, void* stream)
      : api_(api), memory_(api, bytes) {
    check_cuda(api_.upload(&view, memory_.data(), stream, &layer_));
  }
  ~Layer() { api_.free_layer(layer_); }
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;
  const CudaLayer* get() const { return layer_; }

 private:
  const CudaApi& api_;
  const Memory memory_;
  CudaLayer* layer_ = nullptr;
};

// What the library makes and frees.
template <typename T>
using Owned = std::unique_ptr<T, void (*)(T*)>;

std::vector<uint16_t> random_halves(int64_t count, float scale) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, scale);
  std::vector<uint16_t> halves(static_cast<size_t>(count));
  for (uint16_t& half : halves) half = float_to_half(normal(random));
  return halves;
}

class CudaBench : public BenchDevice {
 public:
  CudaBench(const CudaApi& api, int index, int threads)
      : api_(api), index_(index), threads_(threads), timer_(nullptr, api.free_timer) {
    check_cuda(api_.use_device(index_));
    check_cuda(api_.device(index_, &device_));
    CudaTimer* timer = nullptr;
    check_cuda(api_.new_timer(&timer));
    timer_.reset(timer);
    check_cuda(api_.new_stream(&stream_));
    if (const char* problem = api_.dense_problem()) {
      log_warning(std::string(problem) + ": layers are measured without a baseline");
    }
  }
  ~CudaBench() override { api_.free_stream(stream_); }

  std::string name() const override { return device_.name; }
  double bandwidth() const override { return device_.bandwidth; }
  double memory_bytes() const override { return static_cast<double>(device_.memory_bytes); }
  std::string baseline() const override { return "fp16"; }

  std::vector<LayerBench> measure(const LayerBenchRequest& request) override {
    check_cuda(api_.use_device(index_));
    if (request.cold_bytes < kCachesPassed * device_.l2_bytes && !warned_) {
      log_warning("--cold: less than twice the GPU's cache of " +
                  std::to_string(device_.l2_bytes >> 20) + " MB, which may keep the layers");
      warned_ = true;
    }
    std::vector<LayerBench> result = measure_packed(request);
    if (api_.dense_problem() == nullptr) measure_dense(request, &result);
    return result;
  }

 private:
  std::vector<LayerBench> measure_packed(const LayerBenchRequest& request) {
    LayerBench row;
    std::vector<std::unique_ptr<Layer>> layers;
    {
      const PackedPlanes packed =
          pack(random_bench_layer(request.layer, request.rows, request.cols));
      row.stored_bits = 8.0 * static_cast<double>(packed.bytes()) /
                        static_cast<double>(request.rows * request.cols);
      const PlaneTiles tiles(packed, api_.tile_order(), threads_);
      int64_t bytes = 0;
      check_cuda(api_.layer_memory(&tiles.view(), &bytes));
      do {
        layers.push_back(std::make_unique<Layer>(api_, tiles.view(), bytes, stream_));
        row.run_bytes = api_.layer_bytes(layers[0]->get());
      } while (static_cast<int64_t>(layers.size()) * row.run_bytes < request.cold_bytes);
      check_cuda(api_.wait_stream(stream_));
    }
    row.copies = static_cast<int64_t>(layers.size());
    row.run_bits =
        8 * static_cast<double>(row.run_bytes) / static_cast<double>(request.rows * request.cols);
    std::vector<LayerBench> result;
    for (const int64_t tokens : request.tokens) {
      const Memory x(api_, 2 * tokens * request.cols), y(api_, 2 * tokens * request.rows);
      fill_x(x, tokens, request.cols);
      std::vector<CudaProduct> products;
      for (const auto& layer : layers) {
        CudaProduct product;
        product.layer = layer->get();
        product.x = {x.data(), request.cols, true};
        product.y = {y.data(), request.rows, true};
        product.tokens = tokens;
        products.push_back(product);
      }
      const std::vector<double> seconds = tokens <= kernels::cuda::kMaxTokens
                                              ? graph_times(request, products)
                                              : queue_times(request, products);
      row.tokens = tokens;
      row.seconds = median(seconds);
      row.fastest = *std::min_element(seconds.begin(), seconds.end());
      result.push_back(row);
    }
    return result;
  }

  std::vector<double> graph_times(const LayerBenchRequest& request,
                                  const std::vector<CudaProduct>& products) {
    CudaGraph* made = nullptr;
    check_cuda(api_.new_graph(products.data(), static_cast<int>(products.size()), &made));
    const Owned<CudaGraph> graph(made, api_.free_graph);
    return times(request, products.size(),
                 [&] { check_cuda(api_.run_graph(graph.get(), stream_)); });
  }

  std::vector<double> queue_times(const LayerBenchRequest& request,
                                  const std::vector<CudaProduct>& products) {
    int64_t bytes = 0;  // the same for all: they have one shape
    check_cuda(api_.workspace_bytes(products.data(), CudaGemmPath::kAuto, &bytes));
    const Memory workspace(api_, bytes);
    return times(request, products.size(), [&] {
      for (const CudaProduct& product : products) {
        check_cuda(api_.gemm(&product, CudaGemmPath::kAuto, workspace.data(), bytes, stream_));
      }
    });
  }

  void measure_dense(const LayerBenchRequest& request, std::vector<LayerBench>* rows) {
    const int64_t row_bytes = 2 * request.cols, bytes = request.rows * row_bytes;
    const int64_t copies = (request.cold_bytes + bytes - 1) / bytes;
    const std::vector<uint16_t> some =
        random_halves(kRandomRows * request.cols, 1 / std::sqrt(static_cast<float>(request.cols)));
    std::vector<std::unique_ptr<Memory>> weights;
    while (static_cast<int64_t>(weights.size()) < copies) {
      weights.push_back(std::make_unique<Memory>(api_, bytes));
      auto* to = static_cast<uint8_t*>(weights.back()->data());
      for (int64_t first = 0; first < request.rows; first += kRandomRows) {
        const int64_t count = std::min(kRandomRows, request.rows - first);
        check_cuda(api_.copy_in(to + first * row_bytes, some.data(), count * row_bytes, stream_));
      }
    }
    for (LayerBench& row : *rows) {
      const Memory x(api_, 2 * row.tokens * request.cols), y(api_, 2 * row.tokens * request.rows);
      fill_x(x, row.tokens, request.cols);
      row.dense_copies = copies;
      row.dense_seconds = median(times(request, weights.size(), [&] {
        for (const auto& weight : weights) {
          check_cuda(api_.dense_product(weight->data(), x.data(), y.data(), request.rows,
                                        request.cols, row.tokens, stream_));
        }
      }));
    }
  }

  void fill_x(const Memory& x, int64_t tokens, int64_t cols) {
    const std::vector<uint16_t> halves = random_halves(tokens * cols, 1);
    check_cuda(api_.copy_in(x.data(), halves.data(), 2 * tokens * cols, stream_));
    check_cuda(api_.wait_stream(stream_));
  }

  // Seconds of one product, for each repetition; `queue` queues `count` of them.
  template <typename Queue>
  std::vector<double> times(const LayerBenchRequest& request, size_t count, const Queue& queue) {
    const auto seconds_of = [&](int rounds) {
      double seconds = 0;
      check_cuda(api_.start_timer(timer_.get(), stream_));
      for (int round = 0; round < rounds; ++round) queue();
      check_cuda(api_.stop_timer(timer_.get(), stream_, &seconds));
      return seconds / rounds;
    };
    seconds_of(1);  // kernels are loaded
    const double rounds = std::ceil(kSeconds / std::max(seconds_of(1), kSeconds / kMostRounds));
    std::vector<double> result;
    for (int repetition = 0; repetition < request.repetitions; ++repetition) {
      result.push_back(seconds_of(static_cast<int>(rounds)) / static_cast<double>(count));
    }
    return result;
  }

  const CudaApi& api_;
  const int index_, threads_;
  CudaDevice device_;
  Owned<CudaTimer> timer_;
  void* stream_ = nullptr;
  bool warned_ = false;
};

}  // namespace

std::unique_ptr<BenchDevice> make_cuda_bench(const CudaApi& api, int index, int threads) {
  return std::make_unique<CudaBench>(api, index, threads);
}

}  // namespace billm
