// See layer_error.h.
#include "layer_error.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/sum.h>

#include <algorithm>
#include <vector>

#include "billm/base/parallel.h"

namespace billm {
namespace {

// sum over the rows x of x h x', h symmetric: what lies left of the diagonal tiles counts twice,
// which halves the product.
double quadratic_form(const at::Tensor& x, const at::Tensor& h) {
  constexpr int64_t kColumns = 256;
  const int64_t cols = x.size(1);
  double sum = 0;
  for (int64_t first = 0; first < cols; first += kColumns) {
    const int64_t count = std::min(kColumns, cols - first);
    const at::Tensor right = h.narrow(1, first, count), tile = x.narrow(1, first, count);
    at::Tensor product = at::mm(tile, right.narrow(0, first, count));
    if (first > 0) product.addmm_(x.narrow(1, 0, first), right.narrow(0, 0, first), 1, 2);
    sum += product.mul_(tile).sum(at::kDouble).item<double>();
  }
  return sum;
}

}  // namespace

at::Tensor hessian_matrix(const Hessian& hessian, c10::Device device) {
  const at::Tensor here = at::from_blob(const_cast<float*>(hessian.matrix.data()),
                                        {hessian.width, hessian.width}, at::kFloat);
  return here.to(device);
}

double layer_error(const at::Tensor& weight, const at::Tensor& decoded, const at::Tensor& h,
                   int threads) {
  // A GPU's stream is filled by one thread, with larger products.
  const bool on_cpu = h.device().is_cpu();
  const int64_t tile_rows = on_cpu ? 128 : 4096;
  const int64_t rows = weight.size(0);
  const int64_t tiles = (rows + tile_rows - 1) / tile_rows;
  std::vector<double> error(static_cast<size_t>(tiles)), norm(static_cast<size_t>(tiles));
  parallel_for(tiles, on_cpu ? threads : 1, [&](int64_t tile) {
    const at::NoGradGuard no_grad;
    const int64_t first = tile * tile_rows;
    const int64_t count = std::min(tile_rows, rows - first);
    const at::Tensor w = weight.narrow(0, first, count).to(h.device());
    const at::Tensor d = w.sub(decoded.narrow(0, first, count).to(h.device()));
    const auto quadratic = [&](const at::Tensor& x) { return quadratic_form(x, h); };
    error[tile] = quadratic(d);
    norm[tile] = quadratic(w);
  });
  double error_sum = 0, norm_sum = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    error_sum += error[tile];
    norm_sum += norm[tile];
  }
  return norm_sum > 0 ? error_sum / norm_sum : 0.0;
}

}  // namespace billm
