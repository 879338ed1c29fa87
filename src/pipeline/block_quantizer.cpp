// See block_quantizer.h.
#include "block_quantizer.h"

#include <ATen/ops/empty.h>

#include <utility>

#include "billm/base/error.h"
#include "billm/base/stopwatch.h"
#include "billm/model/weights.h"
#include "billm/quantize/rotated.h"
#include "billm/quantize/targets.h"
#include "layer_error.h"

namespace billm {
namespace {

// What the trainer would refuse after the first block.
void check_tunable(const MethodConfig& method, const std::string& of) {
  if (method.reference) {
    throw Error(ErrorCode::kUsage, of + "--tune: cannot go with --compat reference",
                "the published code stores means, which are not tuned: leave out one of them");
  }
  if (method.offset_kind != OffsetKind::kNone) {
    throw Error(ErrorCode::kUsage, of + "--tune: layers with offsets cannot be tuned",
                "leave out --offsets");
  }
  if (integer_bits(method) > 1) {
    throw Error(ErrorCode::kUsage,
                of + "--tune: --method " + method.method + " makes integers, which cannot be tuned",
                "choose a binary method, or leave out --tune");
  }
}

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

void check_rotations(const ModelSpec& spec, const MethodConfig& config, const LayerPlan& plan) {
  for (int64_t block = 0; block < spec.blocks(); ++block) {
    for (const LinearSpec& linear : spec.family->linears) {
      const std::string module = spec.module(block, linear);
      if (stays(plan, module)) continue;
      const RotatedSides sides = planned_config(config, plan, module).rotate;
      if (sides == RotatedSides::kNone) continue;
      check_rotation({linear.in_width(spec.config)}, "--rotate: " + module + ", inputs");
      if (sides == RotatedSides::kIn) continue;
      check_rotation({linear.out_width(spec.config)}, "--rotate: " + module + ", outputs");
    }
  }
}

void check_tunable(const ModelSpec& spec, const MethodConfig& config, const LayerPlan& plan) {
  for (const std::string& module : spec.modules()) {
    if (stays(plan, module)) continue;
    const std::string of = plan.count(module) > 0 ? module + ": " : "";
    check_tunable(planned_config(config, plan, module), of);
  }
}

BlockQuantizer::BlockQuantizer(const ModelSpec& spec, const MethodConfig& config,
                               const QuantizeContext& context, c10::Device device,
                               QuantizeSeconds* seconds)
    : spec_(spec), config_(config), context_(context), device_(device), seconds_(seconds) {}

QuantizedBlock BlockQuantizer::quantize(int64_t index, const LayerPlan& plan,
                                        const GroupStats& stats, const BlockTuner& tune,
                                        Block* block) const {
  QuantizedBlock result;
  // With tuning a layer is packed only when the whole block has been tuned.
  std::vector<PlannedLinear> waiting;
  std::map<std::string, TunedLinear> tuned;    // by suffix
  std::map<std::string, double> nominal_bits;  // by suffix
  const auto pack = [&](const PlannedLinear& linear, const Coded& coded) {
    at::Tensor decoded;
    result.layers.push_back(pack_linear(linear, coded, &decoded));
    block->set_weight(linear.spec->suffix, decoded.to(device_));
  };
  for (const std::string& group : spec_.groups()) {
    std::vector<PlannedLinear> linears = planned_linears(index, group, plan);
    if (linears.empty()) continue;
    CalibrationStats sums = stats(*block, group);
    set_targets(*block, sums, &linears);
    set_inputs(index, std::move(sums), &linears, &result.warnings);
    for (PlannedLinear& linear : linears) {
      Coded coded = quantize_linear(index, linear);
      if (!tune) {
        pack(linear, coded);
        linear.target = at::Tensor();  // its memory
        linear.inputs = nullptr;
        continue;
      }
      const std::string suffix = linear.spec->suffix;
      block->set_weight(suffix, decode_codes(coded.codes, context_.threads).to(device_));
      nominal_bits[suffix] = coded.nominal_bits;
      tuned[suffix] = {linear.target, std::move(coded.codes)};
      waiting.push_back(std::move(linear));
    }
    // What waits needs the Hessian alone.
    for (PlannedLinear& linear : waiting) linear.inputs->hessian.factor = {};
  }
  if (!waiting.empty()) {
    result.tune = tune(&tuned, block);
    seconds_->tune += result.tune->seconds;
    for (const PlannedLinear& linear : waiting) {
      const std::string suffix = linear.spec->suffix;
      pack(linear, {std::move(tuned.at(suffix).codes), nominal_bits.at(suffix)});
    }
  }
  for (const LinearSpec& linear : spec_.family->linears) {
    const std::string module = spec_.module(index, linear);
    if (!stays(plan, module)) continue;
    LayerReport report;
    report.name = module;
    report.rows = linear.out_width(spec_.config);
    report.cols = linear.in_width(spec_.config);
    result.layers.push_back({module, {}, report});
  }
  return result;
}

std::vector<BlockQuantizer::PlannedLinear> BlockQuantizer::planned_linears(
    int64_t index, const std::string& group, const LayerPlan& plan) const {
  std::vector<PlannedLinear> linears;
  for (const LinearSpec& linear : spec_.family->linears) {
    const std::string module = spec_.module(index, linear);
    if (linear.group != group || stays(plan, module)) continue;
    linears.push_back({&linear, module, planned_config(config_, plan, module), {}, {}});
  }
  return linears;
}

void BlockQuantizer::set_targets(const Block& block, const CalibrationStats& stats,
                                 std::vector<PlannedLinear>* linears) const {
  const ScopeSeconds quantize(&seconds_->quantize);
  std::vector<WeightView> views;
  for (PlannedLinear& linear : *linears) {
    const at::Tensor& weight = linear.target = block.weight(linear.spec->suffix).cpu().contiguous();
    views.push_back({weight.const_data_ptr<float>(), weight.size(0), weight.size(1)});
  }
  if (config_.targets == Targets::kOwn) return;
  const auto corrected = corrected_targets(views, stats, config_, context_.threads);
  for (size_t i = 0; i < views.size(); ++i) {
    at::Tensor target = at::empty({views[i].rows, views[i].cols}, at::kFloat);
    std::copy(corrected[i].begin(), corrected[i].end(), target.mutable_data_ptr<float>());
    (*linears)[i].target = target;
  }
}

// Linears that share a basis share its Hessian; all do if the plan does not say otherwise.
void BlockQuantizer::set_inputs(int64_t index, CalibrationStats stats,
                                std::vector<PlannedLinear>* linears,
                                std::vector<std::string>* warnings) const {
  const ScopeSeconds quantize(&seconds_->quantize);
  const auto same_basis = [](const MethodConfig& x, const MethodConfig& y) {
    return (x.rotate == RotatedSides::kNone) == (y.rotate == RotatedSides::kNone) &&
           x.rotate_seed == y.rotate_seed && x.damping == y.damping;
  };
  for (const PlannedLinear& first : *linears) {
    if (first.inputs != nullptr) continue;
    std::vector<PlannedLinear*> same;
    bool needs_factor = false, others = false;
    for (PlannedLinear& linear : *linears) {
      if (linear.inputs != nullptr) continue;
      if (!same_basis(first.config, linear.config)) {
        others = true;
        continue;
      }
      same.push_back(&linear);
      needs_factor |= find_method(linear.config.method).needs_factor;
    }
    const auto inputs = std::make_shared<GroupInputs>(
        group_inputs(index, first, needs_factor, others ? stats : std::move(stats), warnings));
    for (PlannedLinear* linear : same) linear->inputs = inputs;
  }
}

// The Hessian of the inputs and its factor in the basis of `linear`.
BlockQuantizer::GroupInputs BlockQuantizer::group_inputs(int64_t index, const PlannedLinear& linear,
                                                         bool needs_factor, CalibrationStats stats,
                                                         std::vector<std::string>* warnings) const {
  const MethodConfig& config = linear.config;
  const std::string group = linear.spec->group;
  GroupInputs inputs;
  if (config.rotate != RotatedSides::kNone) {
    inputs.rotation = Rotation{
        stats.width, rotation_seed(static_cast<uint64_t>(config.rotate_seed), index, group)};
    inputs.dead = dead_columns(stats);
    rotate_stats(*inputs.rotation, context_.threads, &stats);
  }
  inputs.hessian = make_hessian(std::move(stats), needs_factor, config.damping, context_.threads,
                                context_.accelerator);
  if (inputs.hessian.retries > 0) {
    warnings->push_back("block " + std::to_string(index) + ", " + group + ": damping raised " +
                        std::to_string(inputs.hessian.retries) +
                        " times, to lambda = " + std::to_string(inputs.hessian.lambda));
  }
  return inputs;
}

BlockQuantizer::Coded BlockQuantizer::quantize_linear(int64_t index,
                                                      const PlannedLinear& linear) const {
  const ScopeSeconds quantize(&seconds_->quantize);
  const MethodConfig& config = linear.config;
  const Method& method = find_method(config.method);
  WeightView weight = {linear.target.const_data_ptr<float>(), linear.target.size(0),
                       linear.target.size(1)};
  LayerRotation rotation = {.out = {}, .in = linear.inputs->rotation};
  std::vector<float> rotated;
  if (rotation.in) {
    if (config.rotate == RotatedSides::kBoth) {
      rotation.out = Rotation{weight.rows, rotation_seed(static_cast<uint64_t>(config.rotate_seed),
                                                         index, linear.spec->suffix)};
    }
    rotated = rotate_weight(weight, linear.inputs->dead, rotation, context_.threads);
    weight.data = rotated.data();
  }
  LayerCodes codes = method.quantize(weight, linear.inputs->hessian, config, context_);
  const double nominal_bits = method.nominal_bits(codes);
  return {rotated_codes(std::move(codes), rotation), nominal_bits};
}

// `decoded`: what the packed bytes decode to, on the CPU.
QuantizedLayer BlockQuantizer::pack_linear(const PlannedLinear& linear, const Coded& coded,
                                           at::Tensor* decoded) const {
  QuantizedLayer layer;
  layer.module = linear.module;
  layer.report = report_codes(coded.codes, context_.threads);
  layer.report.name = linear.module;
  layer.report.damping = linear.inputs->hessian.lambda;
  layer.report.nominal_bits = coded.nominal_bits;
  {
    const ScopeSeconds pack_time(&seconds_->pack);
    layer.packed = billm::pack(coded.codes, context_.threads);
    *decoded = decode_weight(*layer.packed, linear.module, context_.threads);
    layer.report.stored_bits = layer.packed->stored_bits();
  }
  const ScopeSeconds quantize(&seconds_->quantize);
  const at::Tensor hessian = hessian_matrix(linear.inputs->hessian, device_);
  const auto in_basis = [&](const at::Tensor& weight) {  // the error is the same in every one
    const std::optional<Rotation>& rotation = linear.inputs->rotation;
    return rotation ? rotate_inputs(weight, *rotation, context_.threads) : weight;
  };
  layer.report.error =
      layer_error(in_basis(linear.target), in_basis(*decoded), hessian, context_.threads);
  return layer;
}

}  // namespace billm
