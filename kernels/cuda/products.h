// The products of a layer in device memory: what is launched, in which order, with which parts of
// the workspace. Plain C++ over an interface of the launches, so that the tests run it on an
// emulated GPU.
#pragma once

#include "kernels/cuda/cuda_api.h"
#include "kernels/cuda/gemm_body.h"
#include "kernels/cuda/gemv_body.h"
#include "kernels/cuda/launch.h"

namespace billm::kernels::cuda {

struct CudaLayer {
  DeviceLayer layer;  // pointers into the memory that upload_layer() was given
  DeviceLimits limits;
  int device = 0;
  int coefficients = 0;  // plan_gemm's
  int64_t bytes = 0;     // read for one product
};

// y [tokens][y_stride] = factor * x [tokens][cols] w [rows][cols]^T by a library. x and w are
// halves, sums fp32.
struct DenseProduct {
  const void* w = nullptr;
  const void* x = nullptr;
  void* y = nullptr;
  int64_t rows = 0, cols = 0, tokens = 0, y_stride = 0;
  bool y_halves = true;
  float factor = 1;
};

// Each returns null or what went wrong.
class Launches {
 public:
  virtual ~Launches() = default;
  virtual const char* check_device(int device) = 0;  // that it is the one that work is queued for
  virtual bool has_blas() = 0;                       // whether dense_product() can be called
  virtual const char* gemv(const GemvParams& params) = 0;
  virtual const char* prepare(const TokensParams& params, int64_t padded_tokens) = 0;
  virtual const char* gemm(const GemmParams& params) = 0;
  virtual const char* dense(const DenseParams& params) = 0;
  virtual const char* scale(const ScaleParams& params, int64_t tokens) = 0;
  virtual const char* dense_product(const DenseProduct& product) = 0;
};

// `memory` and `copy` as layer_in_memory(); `limits` and the index of the device.
const char* make_layer(const PlaneTilesView& view, void* memory, const DeviceLimits& limits,
                       int device, const char* (*copy)(void*, const void*, int64_t, void*),
                       void* context, CudaLayer** layer);

// The launch of run_gemv().
const char* gemv_params(const CudaProduct& product, Launches& launches, GemvParams* params);
const char* run_gemv(const CudaProduct& product, Launches& launches);
const char* gemm_workspace(const CudaProduct& product, CudaGemmPath path, Launches& launches,
                           int64_t* bytes);
const char* run_gemm(const CudaProduct& product, CudaGemmPath path, void* workspace, int64_t bytes,
                     Launches& launches);

}  // namespace billm::kernels::cuda
