// STBLLM (arXiv 2408.01803): an N:M mask by the SI score, then salient columns as BiLLM and three
// regions for the rest. The mask is strict: pruned weights are exactly zero in the file.
#include "binary_coder.h"
#include "method_rows.h"
#include "saliency.h"

namespace billm {

LayerCodes quantize_stbllm(const WeightView& weight, const Hessian& hessian,
                           const MethodConfig& config, const QuantizeContext& context) {
  BinaryPlan plan;
  plan.shape = binary_shape(weight, config);
  plan.keep = nm_mask(si_scores(weight, hessian), weight.rows, weight.cols, config.nm);
  if (config.reference) {
    return quantize_reference(weight, hessian, plan.keep, plan.shape, context.threads);
  }
  if (plan.shape.salient_classes > 0) {
    plan.salient = choose_salient(weight, hessian, plan.keep, plan.shape, config.objective,
                                  config.max_salient, context.threads);
  }
  return code_binary(weight, hessian, plan, config, context);
}

double nominal_bits_stbllm(const LayerCodes& layer) {
  const NmPattern& nm = layer.regions().shape.nm;
  return (1 + salient_share(layer.regions())) * nm.n / nm.m;
}

}  // namespace billm
