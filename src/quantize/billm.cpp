// BiLLM (arXiv 2402.04291): salient columns by residual binarization, the others in a concentrated
// and a sparse region. Mended: the searches minimize the Hessian-weighted error of the weights, the
// feedback is exact, levels and codes are refined in turn (docs/decisions/0004-billm-mended.md).
#include "binary_coder.h"
#include "method_rows.h"
#include "saliency.h"

namespace billm {
namespace {

LinearShape billm_shape(const WeightView& weight, const MethodConfig& config) {
  LinearShape shape;
  shape.rows = weight.rows;
  shape.cols = weight.cols;
  shape.block_size = config.block_size;
  shape.classes = 2;
  shape.salient_classes = 2;
  shape.scale_format = config.scale_format;
  shape.offset_kind = config.offset_kind;
  return shape;
}

}  // namespace

QuantizedLinear quantize_billm(const WeightView& weight, const Hessian& hessian,
                               const MethodConfig& config) {
  BinaryPlan plan;
  plan.shape = billm_shape(weight, config);
  if (config.reference) {
    return quantize_reference(weight, hessian, plan.keep, plan.shape, config.threads);
  }
  plan.salient = choose_salient(weight, hessian, plan.keep, plan.shape, config.objective,
                                config.max_salient, config.threads);
  return code_binary(weight, hessian, plan, config);
}

double nominal_bits_billm(const QuantizedLinear& linear) { return 1 + salient_share(linear); }

}  // namespace billm
