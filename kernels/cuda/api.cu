// The table of functions that the program calls: see cuda_api.h.
#include <algorithm>
#include <cstring>
#include <new>

#include "kernels/cuda/cuda_api.h"
#include "kernels/cuda/device_layer.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/strips.h"

namespace billm::kernels::cuda {

struct CudaGraph {
  cudaGraphExec_t graph = nullptr;
};
struct CudaTimer {
  cudaEvent_t start = nullptr, stop = nullptr;
};

namespace {

cudaStream_t stream_of(void* stream) { return static_cast<cudaStream_t>(stream); }

const char* device_count(int* count) { return check(cudaGetDeviceCount(count)); }

const char* device(int index, CudaDevice* device) {
  cudaDeviceProp properties{};
  const char* problem = check(cudaGetDeviceProperties(&properties, index));
  if (problem != nullptr) return problem;
  *device = CudaDevice();
  std::memcpy(device->name, properties.name,
              std::min(sizeof device->name - 1, sizeof properties.name));
  device->major = properties.major;
  device->minor = properties.minor;
  device->sm_count = properties.multiProcessorCount;
  device->shared_bytes = static_cast<int>(properties.sharedMemPerBlockOptin);
  device->memory_bytes = static_cast<int64_t>(properties.totalGlobalMem);
  device->l2_bytes = properties.l2CacheSize;
  int kilohertz = 0, bits = 0;
  if (cudaDeviceGetAttribute(&kilohertz, cudaDevAttrMemoryClockRate, index) == cudaSuccess &&
      cudaDeviceGetAttribute(&bits, cudaDevAttrGlobalMemoryBusWidth, index) == cudaSuccess) {
    device->bandwidth = 2e3 * kilohertz * (bits / 8);  // two transfers a clock
  }
  return nullptr;
}

const char* use_device(int index) { return check(cudaSetDevice(index)); }

const char* new_stream(void** stream) {
  cudaStream_t result = nullptr;
  const char* problem = check(cudaStreamCreateWithFlags(&result, cudaStreamNonBlocking));
  *stream = result;
  return problem;
}
const char* wait_stream(void* stream) { return check(cudaStreamSynchronize(stream_of(stream))); }
void free_stream(void* stream) { cudaStreamDestroy(stream_of(stream)); }

const char* allocate(int64_t bytes, void** memory) {
  return check(cudaMalloc(memory, static_cast<size_t>(bytes)));
}
void release(void* memory) { cudaFree(memory); }
const char* copy_in(void* to, const void* host, int64_t bytes, void* stream) {
  return check(cudaMemcpyAsync(to, host, static_cast<size_t>(bytes), cudaMemcpyHostToDevice,
                               stream_of(stream)));
}
const char* copy_out(void* host, const void* from, int64_t bytes, void* stream) {
  const char* problem = check(cudaMemcpyAsync(host, from, static_cast<size_t>(bytes),
                                              cudaMemcpyDeviceToHost, stream_of(stream)));
  return problem != nullptr ? problem : wait_stream(stream);
}
const char* fill(void* memory, int byte, int64_t bytes, void* stream) {
  return check(cudaMemsetAsync(memory, byte, static_cast<size_t>(bytes), stream_of(stream)));
}

TileOrder tile_order() { return kCudaTileOrder; }
const char* memory_of_layer(const PlaneTilesView* view, int64_t* bytes) {
  return layer_memory(*view, bytes);
}
const char* upload(const PlaneTilesView* view, void* memory, void* stream, CudaLayer** layer) {
  return upload_layer(*view, memory, stream_of(stream), layer);
}
int64_t layer_bytes(const CudaLayer* layer) { return layer->bytes; }
void free_layer(CudaLayer* layer) { delete layer; }

const char* gemv(const CudaProduct* product, void* stream) {
  StreamLaunches launches(stream);
  return run_gemv(*product, launches);
}
const char* workspace_bytes(const CudaProduct* product, CudaGemmPath path, int64_t* bytes) {
  StreamLaunches launches(nullptr);
  return gemm_workspace(*product, path, launches, bytes);
}
const char* gemm(const CudaProduct* product, CudaGemmPath path, void* workspace, int64_t bytes,
                 void* stream) {
  StreamLaunches launches(stream);
  return run_gemm(*product, path, workspace, bytes, launches);
}

// Captures the launches; ends the capture whatever goes wrong.
const char* capture(const CudaProduct* products, int count, cudaStream_t stream,
                    cudaGraph_t* graph) {
  const char* problem = check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  if (problem != nullptr) return problem;
  for (int i = 0; i < count && problem == nullptr; ++i) problem = gemv(products + i, stream);
  const char* end = check(cudaStreamEndCapture(stream, graph));
  return problem != nullptr ? problem : end;
}

const char* new_graph(const CudaProduct* products, int count, CudaGraph** graph) {
  cudaStream_t stream = nullptr;
  const char* problem = nullptr;
  StreamLaunches launches(nullptr);
  for (int i = 0; i < count && problem == nullptr; ++i) {  // loading is not for a capture
    GemvParams params;
    problem = gemv_params(products[i], launches, &params);
    if (problem == nullptr) problem = load_gemv(params.plan);
  }
  if (problem == nullptr) {
    problem = check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  }
  if (problem != nullptr) return problem;
  cudaGraph_t captured = nullptr;
  cudaGraphExec_t executable = nullptr;
  problem = capture(products, count, stream, &captured);
  if (problem == nullptr) problem = check(cudaGraphInstantiate(&executable, captured, 0));
  if (captured != nullptr) cudaGraphDestroy(captured);
  cudaStreamDestroy(stream);
  if (problem != nullptr) return problem;
  *graph = new (std::nothrow) CudaGraph{executable};
  return *graph == nullptr ? "out of memory" : nullptr;
}
const char* run_graph(CudaGraph* graph, void* stream) {
  return check(cudaGraphLaunch(graph->graph, stream_of(stream)));
}
void free_graph(CudaGraph* graph) {
  if (graph == nullptr) return;
  cudaGraphExecDestroy(graph->graph);
  delete graph;
}

void free_timer(CudaTimer* timer) {
  if (timer == nullptr) return;
  if (timer->start != nullptr) cudaEventDestroy(timer->start);
  if (timer->stop != nullptr) cudaEventDestroy(timer->stop);
  delete timer;
}
const char* new_timer(CudaTimer** timer) {
  *timer = new (std::nothrow) CudaTimer;
  if (*timer == nullptr) return "out of memory";
  const char* problem = check(cudaEventCreate(&(*timer)->start));
  if (problem == nullptr) problem = check(cudaEventCreate(&(*timer)->stop));
  if (problem != nullptr) {
    free_timer(*timer);
    *timer = nullptr;
  }
  return problem;
}
const char* start_timer(CudaTimer* timer, void* stream) {
  return check(cudaEventRecord(timer->start, stream_of(stream)));
}
const char* stop_timer(CudaTimer* timer, void* stream, double* seconds) {
  float milliseconds = 0;
  const char* problem = check(cudaEventRecord(timer->stop, stream_of(stream)));
  if (problem == nullptr) problem = check(cudaEventSynchronize(timer->stop));
  if (problem == nullptr) {
    problem = check(cudaEventElapsedTime(&milliseconds, timer->start, timer->stop));
  }
  *seconds = 1e-3 * double{milliseconds};
  return problem;
}

const char* dense_product(const void* w, const void* x, void* y, int64_t rows, int64_t cols,
                          int64_t tokens, void* stream) {
  DenseProduct product;
  product.w = w;
  product.x = x;
  product.y = y;
  product.rows = rows;
  product.cols = cols;
  product.tokens = tokens;
  product.y_stride = rows;
  return run_dense_product(product, stream_of(stream));
}

const char* code_feedback(const CoderParams* params, void* stream) {
  return launch_code_feedback(*params, stream_of(stream));
}
const char* code_rows(const CoderParams* params, int warps, void* stream) {
  return launch_code_rows(*params, warps, stream_of(stream));
}

constexpr CudaApi kApi = {
    .version = kCudaApiVersion,
    .device_count = device_count,
    .device = device,
    .use_device = use_device,
    .new_stream = new_stream,
    .wait_stream = wait_stream,
    .free_stream = free_stream,
    .allocate = allocate,
    .release = release,
    .copy_in = copy_in,
    .copy_out = copy_out,
    .fill = fill,
    .tile_order = tile_order,
    .layer_memory = memory_of_layer,
    .upload = upload,
    .layer_bytes = layer_bytes,
    .free_layer = free_layer,
    .gemv = gemv,
    .workspace_bytes = workspace_bytes,
    .gemm = gemm,
    .new_graph = new_graph,
    .run_graph = run_graph,
    .free_graph = free_graph,
    .new_timer = new_timer,
    .start_timer = start_timer,
    .stop_timer = stop_timer,
    .free_timer = free_timer,
    .dense_problem = dense_problem,
    .dense_product = dense_product,
    .code_feedback = code_feedback,
    .code_rows = code_rows,
};

}  // namespace
}  // namespace billm::kernels::cuda

extern "C" __attribute__((visibility("default"))) const billm::kernels::cuda::CudaApi*
billm_cuda_api(int version) {
  using billm::kernels::cuda::kApi;
  return version == kApi.version ? &kApi : nullptr;
}
