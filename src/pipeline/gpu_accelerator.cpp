// See gpu_accelerator.h.
#include "gpu_accelerator.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/diagonal.h>
#include <ATen/ops/flip.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <c10/core/CachingDeviceAllocator.h>

namespace billm {

at::Tensor factor_upper(const at::Tensor& h) {
  const auto [lower, info] = at::linalg_cholesky_ex(at::flip(h, {0, 1}));
  if (info.item<int>() != 0) return {};
  // A pivot that is not a number passes for a positive one in some libraries.
  if (!at::isfinite(lower.diagonal()).all().item<bool>()) return {};
  return at::flip(lower, {0, 1});
}

std::vector<float> GpuAccelerator::factor(const std::vector<float>& matrix,
                                          const std::vector<double>& added,
                                          const std::vector<int64_t>& order) const {
  const at::NoGradGuard no_grad;
  const auto n = static_cast<int64_t>(added.size());
  at::Tensor h = at::from_blob(const_cast<float*>(matrix.data()), {n, n}, at::kFloat)
                     .to(device_)
                     .to(at::kDouble);
  h.diagonal().add_(at::from_blob(const_cast<double*>(added.data()), {n}, at::kDouble).to(device_));
  if (!order.empty()) {
    const at::Tensor index =
        at::from_blob(const_cast<int64_t*>(order.data()), {n}, at::kLong).to(device_);
    h = h.index_select(0, index).index_select(1, index);
  }
  const at::Tensor r = factor_upper(h);
  if (!r.defined()) return {};
  std::vector<float> result(static_cast<size_t>(n * n));
  at::from_blob(result.data(), {n, n}, at::kFloat).copy_(r.to(at::kFloat));
  return result;
}

void GpuAccelerator::give_back_memory() const {
  if (device_.is_cuda()) c10::getDeviceAllocator(device_.type())->emptyCache();
}

}  // namespace billm
