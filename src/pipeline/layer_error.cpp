// See layer_error.h.
#include "layer_error.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/sum.h>

#include <vector>

#include "billm/base/parallel.h"

namespace billm {

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
    const auto quadratic = [&](const at::Tensor& x) {
      return at::mm(x, h).mul(x).sum(at::kDouble).item<double>();
    };
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
