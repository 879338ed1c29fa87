// Layers in the memory of a device: see device_layer.h.
#include <algorithm>
#include <new>

#include "kernels/cuda/device_layer.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/layer_plan.h"

namespace billm::kernels::cuda {
namespace {

constexpr int64_t kAlignment = 256;

// Parts of one allocation: first their sizes are added up, then they are copied.
class Arena {
 public:
  explicit Arena(cudaStream_t stream) : stream_(stream) {}

  // Reserves room for `count` elements of *pointer, in which put() will copy them.
  template <typename T>
  int64_t reserve(const T* host, int64_t count) {
    const int64_t offset = size_;
    if (host != nullptr)
      size_ += (count * int64_t{sizeof(T)} + kAlignment - 1) / kAlignment * kAlignment;
    return offset;
  }
  cudaError_t allocate() { return cudaMallocAsync(&memory_, static_cast<size_t>(size_), stream_); }
  template <typename T>
  void put(const T** pointer, int64_t offset, int64_t count) {
    if (*pointer == nullptr || error_ != cudaSuccess) return;
    auto* to = static_cast<uint8_t*>(memory_) + offset;
    error_ = cudaMemcpyAsync(to, *pointer, static_cast<size_t>(count) * sizeof(T),
                             cudaMemcpyHostToDevice, stream_);
    *pointer = reinterpret_cast<const T*>(to);
  }
  void* memory() const { return memory_; }
  cudaError_t error() const { return error_; }

 private:
  cudaStream_t stream_;
  void* memory_ = nullptr;
  int64_t size_ = 0;
  cudaError_t error_ = cudaSuccess;
};

// Calls visit(pointer, count) for each pointer of the layer.
template <typename Visit>
void for_pointers(DeviceLayer& layer, const PlaneTilesView& view, const LayerPlan& plan,
                  Visit visit) {
  const int64_t tile_rows = layer.tiles() * kTileRows,
                columns = int64_t{layer.strips} * kStripColumns;
  visit(&layer.planes, layer.tiles() * layer.tile_bytes);
  visit(&layer.codes, tile_rows * layer.level_rows);
  visit(&layer.levels, tile_rows * layer.level_rows);
  visit(&layer.constants, tile_rows * layer.segments);
  visit(&layer.log8, 256);
  visit(&layer.source, columns);
  visit(&layer.column_scale, columns);
  for (int i = 0; i < kScheduleCount; ++i) {
    Schedule& schedule = layer.schedules[i];
    visit(&schedule.place_of_octet, int64_t{layer.strips} * kStripOctets);
    visit(&schedule.of_strip, layer.strips);
    visit(&schedule.places, static_cast<int64_t>(plan.schedules[i].places.size()));
  }
  if (view.scattered.start == nullptr) return;
  ScatteredLayer& scattered = layer.scattered;
  const auto entries = static_cast<int64_t>(view.scattered.start[layer.rows]);
  visit(&scattered.start, layer.rows + 1);
  visit(&scattered.count, layer.rows * layer.segments);
  visit(&scattered.column, entries);
  visit(&scattered.code, entries);
  visit(&scattered.step, layer.rows);
  visit(&scattered.shift, layer.rows * layer.segments);
  visit(&scattered.first_octet, layer.segments);
}

// Planes, levels and integers; not what places and columns need, which is a small share and the
// same for all tiles.
int64_t weight_bytes(const PlaneTilesView& view) {
  const int64_t rows = view.tiles() * kTileRows;
  int64_t bytes = view.tiles() * view.tile_bytes;
  bytes += rows * view.level_rows * (view.level_kind == LevelKind::kLog8 ? 1 : 4);
  if (view.constants != nullptr) bytes += rows * view.segment_count * 4;
  if (view.scattered.start != nullptr) {
    bytes += int64_t{2} * view.scattered.start[view.rows] + 6 * view.rows * view.segment_count +
             8 * view.rows;
  }
  return bytes;
}

const char* limits_of(int device, DeviceLimits* limits) {
  const char* problem =
      check(cudaDeviceGetAttribute(&limits->sm_count, cudaDevAttrMultiProcessorCount, device));
  if (problem != nullptr) return problem;
  return check(cudaDeviceGetAttribute(&limits->shared_bytes,
                                      cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
}

}  // namespace

const char* check(cudaError_t error) {
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

const char* upload_layer(const PlaneTilesView& view, cudaStream_t stream, CudaLayer** layer) {
  LayerPlan plan;
  const char* problem = plan_layer(view, &plan);
  if (problem != nullptr) return problem;
  CudaLayer result;
  result.layer = layer_in_host_memory(view, plan);
  result.coefficients = strip_coefficients(result.layer, result.layer.schedules[2].of_strip);
  problem = check(cudaGetDevice(&result.device));
  if (problem == nullptr) problem = limits_of(result.device, &result.limits);
  if (problem != nullptr) return problem;
  GemvPlan gemv;  // says now, not at the first product, what there is no kernel for
  problem = plan_gemv(result.layer, kMaxTokens, result.limits, &gemv);
  if (problem != nullptr) return problem;

  Arena arena(stream);
  for_pointers(result.layer, view, plan,
               [&](auto pointer, int64_t count) { arena.reserve(*pointer, count); });
  problem = check(arena.allocate());
  if (problem != nullptr) return problem;
  Arena again(stream);  // gives the same offsets
  for_pointers(result.layer, view, plan, [&](auto pointer, int64_t count) {
    const int64_t offset = again.reserve(*pointer, count);
    arena.put(pointer, offset, count);
  });
  problem = check(arena.error());
  if (problem != nullptr) {
    cudaFree(arena.memory());
    return problem;
  }
  result.memory = arena.memory();
  result.bytes = weight_bytes(view);
  *layer = new (std::nothrow) CudaLayer(result);
  if (*layer == nullptr) {
    cudaFree(arena.memory());
    return "out of memory";
  }
  return nullptr;
}

void free_layer(CudaLayer* layer) {
  if (layer == nullptr) return;
  // Products that read it may still be queued, and memory of cudaMallocAsync is freed at once.
  int before = 0;
  cudaGetDevice(&before);
  cudaSetDevice(layer->device);
  cudaDeviceSynchronize();
  cudaFree(layer->memory);
  cudaSetDevice(before);
  delete layer;
}

namespace {

const char* check_product(const CudaProduct& product) {
  if (product.layer == nullptr) return "product: no layer";
  const DeviceLayer& layer = product.layer->layer;
  if (product.x.data == nullptr || product.y.data == nullptr) return "product: no x or y";
  if (product.tokens < 1) return "product: expected one token or more";
  if (product.tokens > 1 && (product.x.stride < layer.cols || product.y.stride < layer.rows)) {
    return "product: rows of x or y overlap";
  }
  int device = 0;
  const char* problem = check(cudaGetDevice(&device));
  if (problem != nullptr) return problem;
  if (device != product.layer->device) return "product: the layer is on another device";
  return nullptr;
}

GemvParams gemv_params(const CudaProduct& product) {
  GemvParams params;
  params.layer = product.layer->layer;
  params.x = product.x.data;
  params.x_stride = product.x.stride;
  params.x_halves = product.x.halves;
  params.y = product.y.data;
  params.y_stride = product.y.stride;
  params.y_halves = product.y.halves;
  return params;
}

constexpr int64_t kGemvTokens = 32;  // up to here four GEMVs are the quickest

// cuBLAS reaches the rate of Hopper's and Blackwell's tensor cores, which mma.sync does not; from
// here on decoding the layer first is the smaller loss. Estimated, never measured: see
// docs/measurements/gpu.md.
constexpr int kDenseFromMajor = 9;
constexpr int64_t kDenseTokens = 1024;

CudaGemmPath choose(const CudaProduct& product, CudaGemmPath path) {
  if (path != CudaGemmPath::kAuto) return path;
  if (product.tokens <= kGemvTokens) return CudaGemmPath::kGemv;
  GemmPlan plan;
  const CudaLayer& layer = *product.layer;
  if (plan_gemm(layer.layer, product.tokens, layer.coefficients, layer.limits, &plan) != nullptr) {
    return CudaGemmPath::kDense;
  }
  int major = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, layer.device);
  // 12.x has mma.sync as its only tensor instructions.
  const bool newer = major >= kDenseFromMajor && major < 12;
  return newer && product.tokens >= kDenseTokens ? CudaGemmPath::kDense : CudaGemmPath::kFused;
}

int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Parts of the workspace: x as halves, scales of its tokens, and W for the dense way.
struct Workspace {
  int64_t scale = 0, w = 0, bytes = 0;
};
Workspace workspace_of(const DeviceLayer& layer, int64_t padded_tokens, bool dense) {
  const int64_t columns = int64_t{layer.strips} * kStripColumns;
  Workspace result;
  result.scale = aligned(padded_tokens * columns * 2);
  result.w = result.scale + aligned(padded_tokens * 4);
  result.bytes = result.w + (dense ? aligned(layer.rows * columns * 2) : 0);
  return result;
}

// The padded tokens of a path other than kGemv.
const char* padded_tokens_of(const CudaProduct& product, CudaGemmPath path, GemmPlan* plan) {
  if (path == CudaGemmPath::kDense) {
    plan->padded_tokens = product.tokens;
    return nullptr;
  }
  const CudaLayer& layer = *product.layer;
  return plan_gemm(layer.layer, product.tokens, layer.coefficients, layer.limits, plan);
}

}  // namespace

const char* run_gemv(const CudaProduct& product, cudaStream_t stream) {
  const char* problem = check_product(product);
  if (problem != nullptr) return problem;
  if (product.tokens > kMaxTokens) return "gemv: expected 1 to 8 tokens";
  GemvParams params = gemv_params(product);
  problem = plan_gemv(params.layer, static_cast<int>(product.tokens), product.layer->limits,
                      &params.plan);
  return problem != nullptr ? problem : launch_gemv(params, stream);
}

const char* gemm_workspace(const CudaProduct& product, CudaGemmPath path, int64_t* bytes) {
  const char* problem = check_product(product);
  if (problem != nullptr) return problem;
  path = choose(product, path);
  *bytes = 0;
  if (path == CudaGemmPath::kGemv) return nullptr;
  GemmPlan plan;
  problem = padded_tokens_of(product, path, &plan);
  if (problem != nullptr) return problem;
  *bytes =
      workspace_of(product.layer->layer, plan.padded_tokens, path == CudaGemmPath::kDense).bytes;
  return nullptr;
}

const char* run_gemm(const CudaProduct& product, CudaGemmPath path, void* workspace, int64_t bytes,
                     cudaStream_t stream) {
  int64_t needed = 0;
  const char* problem = gemm_workspace(product, path, &needed);
  if (problem != nullptr) return problem;
  if (needed > 0 && (workspace == nullptr || bytes < needed)) return "gemm: workspace too small";
  if (reinterpret_cast<uintptr_t>(workspace) % kAlignment != 0)
    return "gemm: workspace not aligned";
  path = choose(product, path);
  if (path == CudaGemmPath::kGemv) {
    for (int64_t token = 0; token < product.tokens; token += kMaxTokens) {
      CudaProduct part = product;
      part.tokens = std::min<int64_t>(kMaxTokens, product.tokens - token);
      const auto move = [&](CudaMatrix& matrix) {
        matrix.data =
            static_cast<uint8_t*>(matrix.data) + token * matrix.stride * (matrix.halves ? 2 : 4);
      };
      move(part.x);
      move(part.y);
      problem = run_gemv(part, stream);
      if (problem != nullptr) return problem;
    }
    return nullptr;
  }

  const DeviceLayer& layer = product.layer->layer;
  const bool dense = path == CudaGemmPath::kDense;
  GemmPlan plan;
  problem = padded_tokens_of(product, path, &plan);
  if (problem != nullptr) return problem;
  const Workspace parts = workspace_of(layer, plan.padded_tokens, dense);
  auto* memory = static_cast<uint8_t*>(workspace);
  auto* x = reinterpret_cast<uint16_t*>(memory);
  auto* scale = reinterpret_cast<float*>(memory + parts.scale);
  TokensParams tokens;
  tokens.layer = layer;
  tokens.x = product.x.data;
  tokens.x_stride = product.x.stride;
  tokens.x_halves = product.x.halves;
  tokens.tokens = product.tokens;
  tokens.in_blocks = !dense;
  tokens.out = x;
  tokens.scale = scale;
  problem = launch_prepare(tokens, plan.padded_tokens, stream);
  if (problem != nullptr) return problem;

  if (!dense) {
    GemmParams params;
    params.layer = layer;
    params.plan = plan;
    params.x = x;
    params.scale = scale;
    params.y = product.y.data;
    params.y_stride = product.y.stride;
    params.y_halves = product.y.halves;
    params.tokens = product.tokens;
    return launch_gemm(params, stream);
  }
  auto* w = reinterpret_cast<uint16_t*>(memory + parts.w);
  problem = launch_dense({layer, w}, stream);
  if (problem != nullptr) return problem;
  DenseProduct inner;
  inner.w = w;
  inner.x = x;
  inner.y = product.y.data;
  inner.rows = layer.rows;
  inner.cols = int64_t{layer.strips} * kStripColumns;
  inner.tokens = product.tokens;
  inner.y_stride = product.tokens > 1 ? product.y.stride : layer.rows;
  inner.y_halves = product.y.halves;
  inner.factor = layer.unit;
  problem = run_dense_product(inner, stream);
  if (problem != nullptr) return problem;
  return launch_scale({scale, product.y.data, product.y.stride, layer.rows, product.y.halves},
                      product.tokens, stream);
}

}  // namespace billm::kernels::cuda
