// See norm.h.
#include "norm.h"

#include <ATen/ops/layer_norm.h>
#include <ATen/ops/rsqrt.h>

namespace billm {
namespace {

// torch.nn.LayerNorm's default; OPT's configuration does not state it.
constexpr double kLayerNormEps = 1e-5;

// x * rsqrt(mean(x^2) + eps) * weight, by row.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor mean_square = x.pow(2).mean(at::IntArrayRef{-1}, /*keepdim=*/true);
  return x.mul(mean_square.add_(eps).rsqrt_()).mul_(weight);
}

}  // namespace

at::Tensor norm(const ModelSpec& spec, const at::Tensor& x, const at::Tensor& weight,
                const at::Tensor& bias) {
  switch (spec.family->norm) {
    case NormKind::kRms:
      return rms_norm(x, weight, spec.config.rms_norm_eps);
    case NormKind::kLayer:
      return at::layer_norm(x, {x.size(-1)}, weight, bias, kLayerNormEps);
  }
  return {};  // not reached: every kind returns
}

}  // namespace billm
