// See block_quantizer.h.
#include "block_quantizer.h"

#include <ATen/ops/empty.h>

#include <utility>

#include "billm/base/stopwatch.h"
#include "billm/model/weights.h"
#include "billm/quantize/rotated.h"
#include "billm/quantize/targets.h"
#include "layer_error.h"

namespace billm {
namespace {

at::Tensor decode_codes(const LayerCodes& codes, int threads) {
  const std::vector<float> weight = dequantize(codes, threads);
  at::Tensor tensor = at::empty({codes.rows(), codes.cols()}, at::kFloat);
  std::copy(weight.begin(), weight.end(), tensor.mutable_data_ptr<float>());
  return tensor;
}

// The weight with its rows rotated as the inputs were.
at::Tensor rotate_inputs(const at::Tensor& weight, const Rotation& rotation, int threads) {
  at::Tensor rotated = weight.clone();
  rotate_rows(rotation, rotated.mutable_data_ptr<float>(), weight.size(0), weight.size(1), threads);
  return rotated;
}

}  // namespace

void check_rotations(const ModelSpec& spec, const MethodConfig& config) {
  if (config.rotate == RotatedSides::kNone) return;
  for (const LinearSpec& linear : spec.family->linears) {
    const std::string where = "--rotate: " + spec.module(0, linear);
    check_rotation({linear.in_width(spec.config)}, where + ", inputs");
    if (config.rotate == RotatedSides::kIn) continue;
    check_rotation({linear.out_width(spec.config)}, where + ", outputs");
  }
}

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
  std::map<std::string, GroupInputs> inputs;   // by group
  std::map<std::string, TunedLinear> linears;  // by suffix
  std::map<std::string, double> nominal_bits;  // by suffix
  const auto pack = [&](const LinearSpec& linear, const Coded& coded, const at::Tensor& original,
                        const GroupInputs& group) {
    at::Tensor decoded;
    result.layers.push_back(
        pack_linear(spec_.module(index, linear), coded, original, group, &decoded));
    block->set_weight(linear.suffix, decoded.to(device_));
  };
  for (const std::string& name : spec_.groups()) {
    GroupInputs group = group_inputs(index, name, *block, stats(*block, name), &result.warnings);
    for (const LinearSpec& linear : spec_.family->linears) {
      if (linear.group != name) continue;
      const at::Tensor original = std::move(group.targets.at(linear.suffix));
      Coded coded = quantize_linear(index, linear, plan, original, group);
      if (tune) {
        block->set_weight(linear.suffix, decode_codes(coded.codes, context_.threads).to(device_));
        nominal_bits[linear.suffix] = coded.nominal_bits;
        linears[linear.suffix] = {original, std::move(coded.codes)};
      } else {
        pack(linear, coded, original, group);
      }
    }
    group.hessian.factor = {};
    if (tune) inputs[name] = std::move(group);
  }
  if (tune) {
    result.tune = tune(&linears, block);
    seconds_->tune += result.tune->seconds;
    for (const LinearSpec& linear : spec_.family->linears) {
      TunedLinear& tuned = linears.at(linear.suffix);
      pack(linear, {std::move(tuned.codes), nominal_bits.at(linear.suffix)}, tuned.original,
           inputs.at(linear.group));
    }
  }
  return result;
}

// The weights that the group's linears are quantized from.
std::map<std::string, at::Tensor> BlockQuantizer::targets(const std::string& group,
                                                          const Block& block,
                                                          const CalibrationStats& stats) const {
  std::map<std::string, at::Tensor> weights;
  std::vector<const LinearSpec*> linears;
  std::vector<WeightView> views;
  for (const LinearSpec& linear : spec_.family->linears) {
    if (linear.group != group) continue;
    const at::Tensor& weight = weights[linear.suffix] =
        block.weight(linear.suffix).cpu().contiguous();
    linears.push_back(&linear);
    views.push_back({weight.const_data_ptr<float>(), weight.size(0), weight.size(1)});
  }
  if (config_.targets == Targets::kOwn) return weights;
  const auto corrected = corrected_targets(views, stats, config_, context_.threads);
  for (size_t i = 0; i < linears.size(); ++i) {
    at::Tensor target = at::empty({views[i].rows, views[i].cols}, at::kFloat);
    std::copy(corrected[i].begin(), corrected[i].end(), target.mutable_data_ptr<float>());
    weights[linears[i]->suffix] = target;
  }
  return weights;
}

// The weights, the Hessian of the inputs and its factor.
BlockQuantizer::GroupInputs BlockQuantizer::group_inputs(int64_t index, const std::string& group,
                                                         const Block& block, CalibrationStats stats,
                                                         std::vector<std::string>* warnings) const {
  const ScopeSeconds quantize(&seconds_->quantize);
  GroupInputs inputs;
  inputs.targets = targets(group, block, stats);
  if (config_.rotate != RotatedSides::kNone) {
    inputs.rotation = Rotation{
        stats.width, rotation_seed(static_cast<uint64_t>(config_.rotate_seed), index, group)};
    inputs.dead = dead_columns(stats);
    rotate_stats(*inputs.rotation, context_.threads, &stats);
  }
  inputs.hessian = make_hessian(std::move(stats), method_.needs_factor, config_.damping,
                                context_.threads, context_.accelerator);
  if (inputs.hessian.retries > 0) {
    warnings->push_back("block " + std::to_string(index) + ", " + group + ": damping raised " +
                        std::to_string(inputs.hessian.retries) +
                        " times, to lambda = " + std::to_string(inputs.hessian.lambda));
  }
  return inputs;
}

BlockQuantizer::Coded BlockQuantizer::quantize_linear(int64_t index, const LinearSpec& linear,
                                                      const LayerPlan& plan,
                                                      const at::Tensor& original,
                                                      const GroupInputs& inputs) const {
  const ScopeSeconds quantize(&seconds_->quantize);
  const MethodConfig config = planned_config(config_, plan, spec_.module(index, linear));
  WeightView weight = {original.const_data_ptr<float>(), original.size(0), original.size(1)};
  LayerRotation rotation = {.out = {}, .in = inputs.rotation};
  std::vector<float> rotated;
  if (rotation.in) {
    if (config_.rotate == RotatedSides::kBoth) {
      rotation.out = Rotation{weight.rows, rotation_seed(static_cast<uint64_t>(config_.rotate_seed),
                                                         index, linear.suffix)};
    }
    rotated = rotate_weight(weight, inputs.dead, rotation, context_.threads);
    weight.data = rotated.data();
  }
  LayerCodes codes = method_.quantize(weight, inputs.hessian, config, context_);
  const double nominal_bits = method_.nominal_bits(codes);
  return {rotated_codes(std::move(codes), rotation), nominal_bits};
}

// `decoded`: what the packed bytes decode to, on the CPU.
QuantizedLayer BlockQuantizer::pack_linear(const std::string& module, const Coded& coded,
                                           const at::Tensor& original, const GroupInputs& inputs,
                                           at::Tensor* decoded) const {
  QuantizedLayer layer;
  layer.module = module;
  layer.report = report_codes(coded.codes, context_.threads);
  layer.report.name = module;
  layer.report.damping = inputs.hessian.lambda;
  layer.report.nominal_bits = coded.nominal_bits;
  {
    const ScopeSeconds pack_time(&seconds_->pack);
    layer.packed = billm::pack(coded.codes, context_.threads);
    *decoded = decode_weight(layer.packed, module, context_.threads);
    layer.report.stored_bits = layer.packed.stored_bits();
  }
  const ScopeSeconds quantize(&seconds_->quantize);
  const at::Tensor hessian = hessian_matrix(inputs.hessian, device_);
  if (inputs.rotation) {  // the error is the same in every basis
    layer.report.error = layer_error(rotate_inputs(original, *inputs.rotation, context_.threads),
                                     rotate_inputs(*decoded, *inputs.rotation, context_.threads),
                                     hessian, context_.threads);
  } else {
    layer.report.error = layer_error(original, *decoded, hessian, context_.threads);
  }
  return layer;
}

}  // namespace billm
