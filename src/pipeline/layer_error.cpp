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

double layer_error(const at::Tensor& weight, const at::Tensor& decoded, const Hessian& hessian,
                   int threads) {
  constexpr int64_t kTile = 128;
  const int64_t rows = weight.size(0), cols = weight.size(1);
  const int64_t tiles = (rows + kTile - 1) / kTile;
  std::vector<double> error(static_cast<size_t>(tiles)), norm(static_cast<size_t>(tiles));
  parallel_for(tiles, threads, [&](int64_t tile) {
    const at::NoGradGuard no_grad;
    const at::Tensor h =
        at::from_blob(const_cast<float*>(hessian.matrix.data()), {cols, cols}, at::kFloat);
    const int64_t first = tile * kTile;
    const int64_t count = std::min(kTile, rows - first);
    const at::Tensor w = weight.narrow(0, first, count);
    const at::Tensor d = w.sub(decoded.narrow(0, first, count));
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
