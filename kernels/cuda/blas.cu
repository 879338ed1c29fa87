// cuBLAS, loaded when it is first wanted: the program must start, and run packed layers, without
// it.
#include <cublas_v2.h>
#include <dlfcn.h>

#include <mutex>

#include "kernels/cuda/device_layer.h"
#include "kernels/cuda/kernels.h"

namespace billm::kernels::cuda {
namespace {

// In C++ the header overloads the name.
using GemmEx = cublasStatus_t (*)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int,
                                  int, const void*, const void*, cudaDataType, int, const void*,
                                  cudaDataType, int, const void*, void*, cudaDataType, int,
                                  cublasComputeType_t, cublasGemmAlgo_t);

struct Blas {
  const char* problem = nullptr;
  decltype(&cublasCreate_v2) create = nullptr;
  decltype(&cublasSetStream_v2) set_stream = nullptr;
  GemmEx gemm = nullptr;
};

Blas load_blas() {
  Blas blas;
  // Found if LibTorch has loaded it, else where the dynamic linker looks.
  void* library = dlopen("libcublas.so.13", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    blas.problem = "cuBLAS: cannot load libcublas.so.13";
    return blas;
  }
  blas.create = reinterpret_cast<decltype(blas.create)>(dlsym(library, "cublasCreate_v2"));
  blas.set_stream =
      reinterpret_cast<decltype(blas.set_stream)>(dlsym(library, "cublasSetStream_v2"));
  blas.gemm = reinterpret_cast<GemmEx>(dlsym(library, "cublasGemmEx"));
  if (blas.create == nullptr || blas.set_stream == nullptr || blas.gemm == nullptr) {
    blas.problem = "cuBLAS: a function is missing from libcublas.so.13";
  }
  return blas;
}

const Blas& loaded() {
  static const Blas blas = load_blas();
  return blas;
}

const char* text_of(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return nullptr;
    case CUBLAS_STATUS_ALLOC_FAILED:
      return "cuBLAS: out of device memory";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "cuBLAS: not supported on this device";
    default:
      return "cuBLAS: the product failed";
  }
}

}  // namespace

const char* dense_problem() { return loaded().problem; }

const char* run_dense_product(const DenseProduct& product, cudaStream_t stream) {
  const Blas& blas = loaded();
  static std::mutex mutex;  // a handle is for one thread at a time
  static cublasHandle_t handles[kMaxDevices] = {};
  if (blas.problem != nullptr) return blas.problem;
  if (product.rows < 1 || product.cols < 1 || product.tokens < 1 || product.rows > 0x7fffffff ||
      product.cols > 0x7fffffff || product.tokens > 0x7fffffff || product.y_stride > 0x7fffffff) {
    return "dense product: sizes out of range";
  }
  int device = 0;
  const char* problem = check(cudaGetDevice(&device));
  if (problem != nullptr) return problem;
  if (device >= kMaxDevices) return "dense product: too many devices";
  const std::lock_guard<std::mutex> lock(mutex);
  cublasHandle_t& handle = handles[device];
  if (handle == nullptr) problem = text_of(blas.create(&handle));
  if (problem == nullptr) problem = text_of(blas.set_stream(handle, stream));
  if (problem != nullptr) return problem;
  // cuBLAS counts by columns: y^T [rows, tokens] = w [rows, cols] x^T [cols, tokens].
  const float beta = 0;
  const auto rows = static_cast<int>(product.rows), cols = static_cast<int>(product.cols);
  return text_of(
      blas.gemm(handle, CUBLAS_OP_T, CUBLAS_OP_N, rows, static_cast<int>(product.tokens), cols,
                &product.factor, product.w, CUDA_R_16F, cols, product.x, CUDA_R_16F, cols, &beta,
                product.y, product.y_halves ? CUDA_R_16F : CUDA_R_32F,
                static_cast<int>(product.y_stride), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
}

}  // namespace billm::kernels::cuda
