// See cuda_runner.h. Products are queued in CUDA's default stream, where ATen's work is, too.
#include "cuda_runner.h"

#include <ATen/ops/empty.h>

#include <string>
#include <vector>

#include "billm/base/error.h"
#include "billm/pack/plane_tiles.h"
#include "kernels/cuda/load.h"

namespace billm {
namespace {

using kernels::cuda::CudaApi;
using kernels::cuda::CudaLayer;

void check(const char* problem) {
  if (problem != nullptr) throw Error(ErrorCode::kFailure, std::string("CUDA: ") + problem);
}

const CudaApi& cuda_api() {
  static const CudaApi* api = [] {
    std::string why;
    const CudaApi* found = kernels::cuda::load_cuda_kernels(&why);
    if (found == nullptr) {
      throw Error(ErrorCode::kFailure, "cannot load the CUDA kernels: " + why,
                  "build billm where nvcc 13 is, or use --device cpu");
    }
    return found;
  }();
  return *api;
}

class CudaLinear : public LinearOperator {
 public:
  explicit CudaLinear(const kernels::PlaneTilesView& view) : rows_(view.rows), cols_(view.cols) {
    check(cuda_api().upload(&view, nullptr, &layer_));
  }
  ~CudaLinear() override { cuda_api().free_layer(layer_); }
  CudaLinear(const CudaLinear&) = delete;
  CudaLinear& operator=(const CudaLinear&) = delete;

  int64_t bytes() const override { return cuda_api().layer_bytes(layer_); }

  at::Tensor apply(const at::Tensor& x) const override {
    if (!x.is_cuda() || x.scalar_type() != at::kFloat || x.dim() != 2 || x.size(1) != cols_) {
      throw Error(ErrorCode::kFailure, "CUDA: a packed layer of " + std::to_string(cols_) +
                                           " columns got an input that is not fp32 [tokens, " +
                                           std::to_string(cols_) + "] of the device");
    }
    const at::Tensor input = x.contiguous();
    const int64_t tokens = input.size(0);
    at::Tensor result = at::empty({tokens, rows_}, input.options());
    kernels::cuda::CudaProduct product;
    product.layer = layer_;
    product.x = {input.data_ptr(), cols_, false};
    product.y = {result.data_ptr(), rows_, false};
    product.tokens = tokens;
    const CudaApi& api = cuda_api();
    int64_t bytes = 0;
    const auto path = kernels::cuda::CudaGemmPath::kAuto;
    check(api.workspace_bytes(&product, path, &bytes));
    // ATen's memory is reused in the order of the stream, so it may be dropped at once.
    const at::Tensor workspace = at::empty({bytes}, input.options().dtype(at::kByte));
    check(api.gemm(&product, path, workspace.data_ptr(), bytes, nullptr));
    return result;
  }

 private:
  const int64_t rows_, cols_;
  CudaLayer* layer_ = nullptr;
};

class CudaRunner : public LinearRunner {
 public:
  CudaRunner(c10::Device device, int threads) : threads_(threads) {
    check(cuda_api().use_device(device.has_index() ? device.index() : 0));
  }
  std::vector<std::unique_ptr<LinearOperator>> make_copies(const PackedLinear& packed,
                                                           int64_t bytes) override {
    const PlaneTiles tiles(packed, cuda_api().tile_order(), threads_);
    std::vector<std::unique_ptr<LinearOperator>> result;
    do {
      result.push_back(std::make_unique<CudaLinear>(tiles.view()));
    } while (static_cast<int64_t>(result.size()) * result[0]->bytes() < bytes);
    return result;
  }
  int threads() const override { return threads_; }

 private:
  const int threads_;
};

}  // namespace

std::unique_ptr<LinearRunner> make_cuda_runner(c10::Device device, int threads) {
  return std::make_unique<CudaRunner>(device, threads);
}

}  // namespace billm
