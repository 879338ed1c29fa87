// ARB-LLM in its RC form with the column-group bitmap (arXiv 2410.03129): a weight is worth column
// scale x row scale x sign; salient columns are marked once, and both parts have their own
// magnitude classes. Fixed: all under the full Hessian with error feedback, where the paper's RC
// form minimizes the plain error of the weights (docs/decisions/0005-arb.md).
//
// With C = diag(column scales), W' = W C^-1 and R' = C R the error |(W - Q) R|^2 is
// |(W' - Q') R'|^2, so the engine of BiLLM codes W' under R' as it is.
#include <algorithm>
#include <cmath>

#include "binary_coder.h"
#include "column_scales.h"
#include "method_rows.h"
#include "saliency.h"

namespace billm {
namespace {

// What the engine codes: W C^-1 under C R. The matrix H stays empty: the engine reads R only.
struct Scaled {
  Scaled(const WeightView& weight, const Hessian& hessian, const std::vector<float>& scales)
      : data(static_cast<size_t>(weight.rows * weight.cols)),
        view{data.data(), weight.rows, weight.cols} {
    for (int64_t row = 0; row < weight.rows; ++row) {
      for (int64_t col = 0; col < weight.cols; ++col) {
        data[row * weight.cols + col] = weight.data[row * weight.cols + col] / scales[col];
      }
    }
    factor.width = hessian.width;
    factor.factor.resize(hessian.factor.size());
    factor.diagonal.resize(hessian.diagonal.size());
    for (int64_t i = 0; i < weight.cols; ++i) {
      for (int64_t j = 0; j < weight.cols; ++j) {
        factor.factor[i * weight.cols + j] = hessian.factor[i * weight.cols + j] * scales[i];
      }
      factor.diagonal[i] = hessian.diagonal[i] * scales[i];
    }
  }
  std::vector<float> data;
  WeightView view;
  Hessian factor;
};

RegionCodes code_with(const WeightView& weight, const Hessian& hessian, const RegionFormat& shape,
                      const std::vector<float>& scales, const MethodConfig& config,
                      const QuantizeContext& context) {
  const Scaled scaled(weight, hessian, scales);
  BinaryPlan plan;
  plan.shape = shape;
  if (shape.salient_classes > 0) {
    plan.salient = choose_salient(scaled.view, scaled.factor, plan.keep, shape, config.objective,
                                  config.max_salient, context.threads);
  }
  RegionCodes linear = code_binary(scaled.view, scaled.factor, plan, config, context);
  linear.column_scale = scales;
  return linear;
}

}  // namespace

// Codes for the column scales, then column scales for the codes, in turn; the best pair is kept, so
// another round never makes a layer worse.
LayerCodes quantize_arb(const WeightView& weight, const Hessian& hessian,
                        const MethodConfig& config, const QuantizeContext& context) {
  RegionFormat shape = binary_shape(weight, config);
  shape.column_scales = true;
  RegionCodes best =
      code_with(weight, hessian, shape,
                first_column_scales(weight, hessian, shape, context.threads), config, context);
  double least = refit_columns(weight, hessian, context.threads, &best);
  for (int round = 0; round < config.column_rounds; ++round) {
    RegionCodes next = code_with(weight, hessian, shape, best.column_scale, config, context);
    const double error = refit_columns(weight, hessian, context.threads, &next);
    if (!(error < least)) break;
    least = error;
    best = std::move(next);
  }
  return best;
}

// The paper counts as BiLLM's does: one sign per weight, two per salient one.
double nominal_bits_arb(const LayerCodes& layer) { return 1 + salient_share(layer.regions()); }

}  // namespace billm
