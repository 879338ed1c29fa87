// See fake_cuda.h.
#include "support/fake_cuda.h"

#include <cstdlib>
#include <cstring>

#include "kernels/cuda/layer_memory.h"
#include "support/emulated_launches.h"

namespace billm::kernels::cuda {

struct CudaGraph {
  std::vector<CudaProduct> products;
};
struct CudaTimer {
  double start = 0;
};

}  // namespace billm::kernels::cuda

namespace billm::test {
namespace {

using namespace kernels::cuda;  // NOLINT: the functions stand for those of that namespace
using kernels::PlaneTilesView;
using kernels::TileOrder;

const char* next_call() {
  FakeCuda& state = fake_cuda();
  if (state.fail_after == 0) return "no more";
  if (state.fail_after > 0) --state.fail_after;
  return nullptr;
}

template <typename T>
void made(T** out, T* object) {
  *out = object;
  ++fake_cuda().live;
}
template <typename T>
void freed(T* object) {
  if (object != nullptr) --fake_cuda().live;
  delete object;
}

const char* device_count(int* count) {
  *count = 1;
  return next_call();
}
const char* device(int, CudaDevice* device) {
  if (const char* problem = next_call()) return problem;
  *device = CudaDevice();
  std::strcpy(device->name, "a fake");
  device->major = 9;
  device->sm_count = 2;
  device->shared_bytes = 163 * 1024;
  device->memory_bytes = 1 << 30;
  device->l2_bytes = 1 << 20;
  device->bandwidth = fake_cuda().bandwidth;
  return nullptr;
}
const char* use_device(int index) { return index == 0 ? next_call() : "no such device"; }

const char* new_stream(void** stream) {
  if (const char* problem = next_call()) return problem;
  int* made_one = nullptr;
  made(&made_one, new int(0));
  *stream = made_one;
  return nullptr;
}
const char* wait_stream(void*) { return next_call(); }
void free_stream(void* stream) { freed(static_cast<int*>(stream)); }

const char* allocate(int64_t bytes, void** memory) {
  if (const char* problem = next_call()) return problem;
  *memory = std::aligned_alloc(256, static_cast<size_t>((bytes + 256) / 256 * 256));
  std::memset(*memory, 0xff, static_cast<size_t>(bytes));  // NaN until it is written
  ++fake_cuda().live;
  return nullptr;
}
void release(void* memory) {
  if (memory != nullptr) --fake_cuda().live;
  std::free(memory);
}
const char* copy(void* to, const void* from, int64_t bytes, void*) {
  if (const char* problem = next_call()) return problem;
  std::memcpy(to, from, static_cast<size_t>(bytes));
  return nullptr;
}
const char* fill(void* memory, int byte, int64_t bytes, void*) {
  if (const char* problem = next_call()) return problem;
  std::memset(memory, byte, static_cast<size_t>(bytes));
  return nullptr;
}

TileOrder tile_order() { return kCudaTileOrder; }
const char* layer_memory(const PlaneTilesView* view, int64_t* bytes) {
  LayerPlan plan;
  const char* problem = plan_layer(*view, &plan);
  if (problem == nullptr) problem = next_call();
  if (problem == nullptr) *bytes = layer_memory_bytes(*view, plan);
  return problem;
}
const char* upload(const PlaneTilesView* view, void* memory, void*, CudaLayer** layer) {
  const DeviceLimits limits = {.sm_count = 2, .shared_bytes = 163 * 1024, .major = 9};
  const CopyIn into = [](void* to, const void* from, int64_t bytes, void* context) {
    return copy(to, from, bytes, context);
  };
  const char* problem = make_layer(*view, memory, limits, 0, into, nullptr, layer);
  if (problem == nullptr) ++fake_cuda().live;
  return problem;
}
int64_t layer_bytes(const CudaLayer* layer) { return layer->bytes; }

void passed(const CudaProduct& product) {
  FakeCuda& state = fake_cuda();
  ++state.products;
  state.now += state.layer_seconds;
  state.weights.push_back(product.layer->layer.planes);
}
const char* gemv(const CudaProduct* product, void*) {
  if (const char* problem = next_call()) return problem;
  passed(*product);
  EmulatedLaunches launches;
  return run_gemv(*product, launches);
}
const char* workspace_bytes(const CudaProduct* product, CudaGemmPath path, int64_t* bytes) {
  EmulatedLaunches launches(WarpOrder::kForward, fake_cuda().blas);
  return gemm_workspace(*product, path, launches, bytes);
}
const char* gemm(const CudaProduct* product, CudaGemmPath path, void* workspace, int64_t bytes,
                 void*) {
  if (const char* problem = next_call()) return problem;
  passed(*product);
  EmulatedLaunches launches(WarpOrder::kForward, fake_cuda().blas);
  return run_gemm(*product, path, workspace, bytes, launches);
}

const char* new_graph(const CudaProduct* products, int count, CudaGraph** graph) {
  if (const char* problem = next_call()) return problem;
  made(graph, new CudaGraph{{products, products + count}});
  return nullptr;
}
const char* run_graph(CudaGraph* graph, void* stream) {
  for (const CudaProduct& product : graph->products) {
    if (const char* problem = gemv(&product, stream)) return problem;
  }
  return nullptr;
}

const char* new_timer(CudaTimer** timer) {
  if (const char* problem = next_call()) return problem;
  made(timer, new CudaTimer);
  return nullptr;
}
const char* start_timer(CudaTimer* timer, void*) {
  timer->start = fake_cuda().now;
  return next_call();
}
const char* stop_timer(CudaTimer* timer, void*, double* seconds) {
  *seconds = fake_cuda().now - timer->start;
  return next_call();
}
const char* dense_problem() { return fake_cuda().blas ? nullptr : "cuBLAS: not here"; }
const char* dense_product(const void* w, const void* x, void* y, int64_t rows, int64_t cols,
                          int64_t tokens, void*) {
  if (const char* problem = next_call()) return problem;
  if (!fake_cuda().blas) return "cuBLAS: not here";
  fake_cuda().now += fake_cuda().dense_seconds;
  fake_cuda().weights.push_back(w);
  return EmulatedLaunches().dense_product(
      {.w = w, .x = x, .y = y, .rows = rows, .cols = cols, .tokens = tokens, .y_stride = rows});
}

}  // namespace

FakeCuda& fake_cuda() {
  static thread_local FakeCuda state;
  return state;
}

const CudaApi& fake_cuda_api() {
  static constexpr CudaApi kApi = {
      .version = kCudaApiVersion,
      .device_count = device_count,
      .device = device,
      .use_device = use_device,
      .new_stream = new_stream,
      .wait_stream = wait_stream,
      .free_stream = free_stream,
      .allocate = allocate,
      .release = release,
      .copy_in = copy,
      .copy_out = copy,
      .fill = fill,
      .tile_order = tile_order,
      .layer_memory = layer_memory,
      .upload = upload,
      .layer_bytes = layer_bytes,
      .free_layer = freed<CudaLayer>,
      .gemv = gemv,
      .workspace_bytes = workspace_bytes,
      .gemm = gemm,
      .new_graph = new_graph,
      .run_graph = run_graph,
      .free_graph = freed<CudaGraph>,
      .new_timer = new_timer,
      .start_timer = start_timer,
      .stop_timer = stop_timer,
      .free_timer = freed<CudaTimer>,
      .dense_problem = dense_problem,
      .dense_product = dense_product,
      .code_feedback = nullptr,
      .code_rows = nullptr,
  };
  return kApi;
}

}  // namespace billm::test
