// BiLLM (arXiv 2402.04291): salient columns by residual binarization, the others in a concentrated
// and a sparse region. Fixed: the searches minimize the Hessian-weighted error of the weights, the
// feedback is exact, levels and codes are refined in turn (docs/decisions/0004-billm-fixed.md).
#include "binary_coder.h"
#include "method_rows.h"
#include "saliency.h"

namespace billm {
LayerCodes quantize_billm(const WeightView& weight, const Hessian& hessian,
                          const MethodConfig& config, const QuantizeContext& context) {
  BinaryPlan plan;
  plan.shape = binary_shape(weight, config);
  if (config.reference) {
    return quantize_reference(weight, hessian, plan.keep, plan.shape, context.threads);
  }
  if (plan.shape.salient_classes > 0) {
    plan.salient = choose_salient(weight, hessian, plan.keep, plan.shape, config.objective,
                                  config.max_salient, context.threads);
  }
  return code_binary(weight, hessian, plan, config, context);
}

double nominal_bits_billm(const LayerCodes& layer) { return 1 + salient_share(layer.regions()); }

}  // namespace billm
