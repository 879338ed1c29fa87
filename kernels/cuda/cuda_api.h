// What the program calls of libbillm_cuda.so. The library is not linked: it is loaded with dlopen
// when a CUDA device is used, so that a machine without a GPU needs nothing of CUDA.
//
//   void* library = dlopen("<directory of the program>/libbillm_cuda.so", RTLD_NOW | RTLD_LOCAL);
//   auto get = (CudaApi::Get*)dlsym(library, kCudaApiSymbol);
//   const CudaApi* api = get(kCudaApiVersion);   // null: another version
//
// Functions return null, or a text that says what went wrong; it stays valid until the thread's
// next call. Pointers are to the memory of the device unless they say "host"; a stream of null is
// CUDA's default stream. Work is queued in the stream, and nothing waits for it but copy_out,
// wait_stream and stop_timer. All calls are for the device that use_device() chose in the calling
// thread.
#pragma once

#include <cstdint>

#include "kernels/cuda/coder_params.h"
#include "kernels/plane_tiles.h"

namespace billm::kernels::cuda {

inline constexpr int kCudaApiVersion = 2;
inline constexpr char kCudaApiSymbol[] = "billm_cuda_api";
inline constexpr char kCudaLibrary[] = "libbillm_cuda.so";

struct CudaLayer;  // a layer in the memory of a device
struct CudaGraph;  // a list of products, launched at once
struct CudaTimer;  // two events

struct CudaDevice {
  char name[256] = {};
  int major = 0, minor = 0;  // compute capability
  int sm_count = 0;
  int shared_bytes = 0;  // of a block, at most
  int64_t memory_bytes = 0, l2_bytes = 0;
  double bandwidth = 0;  // bytes/s of its memory, from clock and bus width; 0: not told
};

// [tokens][stride], fp32 or fp16.
struct CudaMatrix {
  void* data = nullptr;
  int64_t stride = 0;  // numbers between the first of two tokens
  bool halves = false;
};

// y [tokens][rows] = x [tokens][cols] W^T.
struct CudaProduct {
  const CudaLayer* layer = nullptr;
  CudaMatrix x, y;
  int64_t tokens = 0;
};

// How gemm() works. kAuto takes the GEMV for few tokens, else the fused kernel, or the dense way
// where that is faster (choose_gemm in launch.h).
enum class CudaGemmPath { kAuto, kGemv, kFused, kDense };

struct CudaApi {
  using Get = const CudaApi*(int version);
  int version = kCudaApiVersion;

  const char* (*device_count)(int* count);
  const char* (*device)(int index, CudaDevice* device);
  const char* (*use_device)(int index);

  const char* (*new_stream)(void** stream);
  const char* (*wait_stream)(void* stream);
  void (*free_stream)(void* stream);

  const char* (*allocate)(int64_t bytes, void** memory);
  void (*release)(void* memory);
  const char* (*copy_in)(void* to, const void* host, int64_t bytes, void* stream);
  const char* (*copy_out)(void* host, const void* from, int64_t bytes, void* stream);
  const char* (*fill)(void* memory, int byte, int64_t bytes, void* stream);

  // `view` with host pointers, in the order of tile_order(). The layer is copied into `memory`, of
  // layer_memory() bytes and aligned to 256, which the caller frees after free_layer() and after
  // the products. The view may be freed when upload returns, unless its memory is page-locked: then
  // when the stream has come so far. Other streams may use the layer after wait_stream().
  TileOrder (*tile_order)();
  const char* (*layer_memory)(const PlaneTilesView* view, int64_t* bytes);
  const char* (*upload)(const PlaneTilesView* view, void* memory, void* stream, CudaLayer** layer);
  int64_t (*layer_bytes)(const CudaLayer* layer);  // of weights, read for one product
  void (*free_layer)(CudaLayer* layer);

  // 1 to 8 tokens. Needs no workspace and may be captured in a graph.
  const char* (*gemv)(const CudaProduct* product, void* stream);
  // Any number of tokens, with a workspace of workspace_bytes(), aligned to 256.
  const char* (*workspace_bytes)(const CudaProduct* product, CudaGemmPath path, int64_t* bytes);
  const char* (*gemm)(const CudaProduct* product, CudaGemmPath path, void* workspace,
                      int64_t workspace_bytes, void* stream);

  // GEMVs one after the other as one graph.
  const char* (*new_graph)(const CudaProduct* products, int count, CudaGraph** graph);
  const char* (*run_graph)(CudaGraph* graph, void* stream);
  void (*free_graph)(CudaGraph* graph);

  // For measurements: time between two points of a stream, and the baseline: y = x W^T by cuBLAS
  // with dense fp16 matrices, sums in fp32. w [rows][cols], x [tokens][cols], y [tokens][rows].
  // dense_problem(): null where cuBLAS can be loaded, else why not; then kAuto does without it.
  const char* (*new_timer)(CudaTimer** timer);
  const char* (*start_timer)(CudaTimer* timer, void* stream);
  const char* (*stop_timer)(CudaTimer* timer, void* stream, double* seconds);
  void (*free_timer)(CudaTimer* timer);
  const char* (*dense_problem)();
  const char* (*dense_product)(const void* w, const void* x, void* y, int64_t rows, int64_t cols,
                               int64_t tokens, void* stream);

  // Binary coding of a quantization group (coder_params.h): `carried` from the groups before it,
  // then all rows, `warps` of them in a block of threads.
  const char* (*code_feedback)(const CoderParams* params, void* stream);
  const char* (*code_rows)(const CoderParams* params, int warps, void* stream);
};

}  // namespace billm::kernels::cuda

extern "C" const billm::kernels::cuda::CudaApi* billm_cuda_api(int version);
