// See block_quantizer.h.
#include "block_quantizer.h"

#include <ATen/ops/empty.h>

#include <utility>

#include "billm/base/stopwatch.h"
#include "billm/model/weights.h"
#include "layer_error.h"

namespace billm {
namespace {

at::Tensor decode_codes(const LayerCodes& codes, int threads) {
  const std::vector<float> weight = dequantize(codes, threads);
  at::Tensor tensor = at::empty({codes.rows(), codes.cols()}, at::kFloat);
  std::copy(weight.begin(), weight.end(), tensor.mutable_data_ptr<float>());
  return tensor;
}

}  // namespace

BlockQuantizer::BlockQuantizer(const ModelSpec& spec, const MethodConfig& config,
                               const QuantizeContext& context, c10::Device device,
                               QuantizeSeconds* seconds)
    : spec_(spec),
      config_(config),
      method_(find_method(config.method)),
      context_(context),
      device_(device),
      seconds_(seconds) {}

QuantizedBlock BlockQuantizer::quantize(int64_t index, const LayerPlan& plan,
                                        const GroupStats& stats, const BlockTuner& tune,
                                        Block* block) const {
  QuantizedBlock result;
  // With tuning a layer is packed only when the whole block has been tuned.
  std::map<std::string, Hessian> hessians;     // by group
  std::map<std::string, TunedLinear> linears;  // by suffix
  const auto pack = [&](const LinearSpec& linear, const LayerCodes& codes,
                        const at::Tensor& original, const Hessian& hessian) {
    at::Tensor decoded;
    result.layers.push_back(
        pack_linear(spec_.module(index, linear), codes, original, hessian, &decoded));
    block->set_weight(linear.suffix, decoded.to(device_));
  };
  for (const std::string& group : spec_.groups()) {
    Hessian hessian = group_hessian(index, group, stats(*block, group), &result.warnings);
    for (const LinearSpec& linear : spec_.family->linears) {
      if (linear.group != group) continue;
      const at::Tensor original = block->weight(linear.suffix).cpu().contiguous();
      LayerCodes codes = quantize_linear(spec_.module(index, linear), plan, original, hessian);
      if (tune) {
        block->set_weight(linear.suffix, decode_codes(codes, context_.threads).to(device_));
        linears[linear.suffix] = {original, std::move(codes)};
      } else {
        pack(linear, codes, original, hessian);
      }
    }
    hessian.factor = {};
    if (tune) hessians[group] = std::move(hessian);
  }
  if (tune) {
    result.tune = tune(&linears, block);
    seconds_->tune += result.tune->seconds;
    for (const LinearSpec& linear : spec_.family->linears) {
      TunedLinear& tuned = linears.at(linear.suffix);
      pack(linear, std::move(tuned.codes), tuned.original, hessians.at(linear.group));
    }
  }
  return result;
}

// What the linears of a group share: the Hessian of their inputs and its factor.
Hessian BlockQuantizer::group_hessian(int64_t index, const std::string& group,
                                      CalibrationStats stats,
                                      std::vector<std::string>* warnings) const {
  const ScopeSeconds quantize(&seconds_->quantize);
  Hessian hessian = make_hessian(std::move(stats), method_.needs_factor, config_.damping,
                                 context_.threads, context_.accelerator);
  if (hessian.retries > 0) {
    warnings->push_back("block " + std::to_string(index) + ", " + group + ": damping raised " +
                        std::to_string(hessian.retries) +
                        " times, to lambda = " + std::to_string(hessian.lambda));
  }
  return hessian;
}

LayerCodes BlockQuantizer::quantize_linear(const std::string& module, const LayerPlan& plan,
                                           const at::Tensor& original,
                                           const Hessian& hessian) const {
  const ScopeSeconds quantize(&seconds_->quantize);
  return method_.quantize({original.const_data_ptr<float>(), original.size(0), original.size(1)},
                          hessian, planned_config(config_, plan, module), context_);
}

// `decoded`: what the packed bytes decode to, on the CPU.
QuantizedLayer BlockQuantizer::pack_linear(const std::string& module, const LayerCodes& codes,
                                           const at::Tensor& original, const Hessian& hessian,
                                           at::Tensor* decoded) const {
  QuantizedLayer layer;
  layer.module = module;
  layer.report = report_codes(codes, context_.threads);
  layer.report.name = module;
  layer.report.damping = hessian.lambda;
  layer.report.nominal_bits = method_.nominal_bits(codes);
  {
    const ScopeSeconds pack_time(&seconds_->pack);
    layer.packed = billm::pack(codes, context_.threads);
    *decoded = decode_weight(layer.packed, module, context_.threads);
    layer.report.stored_bits = layer.packed.stored_bits();
  }
  const ScopeSeconds quantize(&seconds_->quantize);
  layer.report.error =
      layer_error(original, *decoded, hessian_matrix(hessian, device_), context_.threads);
  return layer;
}

}  // namespace billm
