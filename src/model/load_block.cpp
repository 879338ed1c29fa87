// A block's tensors and operators from a checkpoint: see include/billm/model/block.h.
#include "billm/base/error.h"
#include "billm/base/log.h"
#include "billm/model/block.h"
#include "billm/model/dense_linear.h"
#include "billm/model/runtime.h"

namespace billm {

const at::Tensor& Block::weight(const std::string& suffix) const {
  const auto* dense = dynamic_cast<const DenseLinear*>(linears.at(suffix).get());
  if (dense == nullptr) throw Error(ErrorCode::kFailure, suffix + ": not a dense linear");
  return dense->weight();
}

void Block::set_weight(const std::string& suffix, at::Tensor weight) {
  linears[suffix] = std::make_shared<DenseLinear>(std::move(weight));
}

Block load_block_vectors(const ModelWeights& weights, const ModelSpec& spec, int64_t index,
                         c10::Device device) {
  Block block;
  block.window = spec.config.windows.at(static_cast<size_t>(index));
  const auto load = [&](const std::string& name) { return weights.dense(name, 1).to(device); };
  const std::string prefix = spec.block_prefix(index);
  for (const NormSpec& norm : spec.family->norms) {
    const std::string module = prefix + norm.suffix;
    if (spec.norms_have_weights()) block.norms[norm.suffix] = load(module + ".weight");
    if (spec.norms_have_biases()) block.biases[norm.suffix] = load(module + ".bias");
  }
  for (const LinearSpec& linear : spec.family->linears) {
    if (!linear.has_bias(spec.config)) continue;
    block.biases[linear.suffix] = load(spec.module(index, linear) + ".bias");
  }
  return block;
}

Block load_block(const ModelWeights& weights, const ModelSpec& spec, int64_t index, int threads,
                 c10::Device device) {
  Block block = load_block_vectors(weights, spec, index, device);
  for (const LinearSpec& linear : spec.family->linears) {
    block.set_weight(linear.suffix,
                     to_device(weights.linear(spec.module(index, linear), threads), device));
  }
  return block;
}

void share_linears(Block& block, WorkerTeam& team) {
  for (auto& [suffix, linear] : block.linears) {
    const auto* dense = dynamic_cast<const DenseLinear*>(linear.get());
    if (dense != nullptr) linear = std::make_shared<DenseLinear>(dense->weight(), &team);
  }
}

namespace {

bool whole_group(const ModelSpec& spec, const std::string& group, size_t linears) {
  size_t count = 0;
  for (const LinearSpec& linear : spec.family->linears) count += linear.group == group;
  return count == linears;
}

// The rotation that is the innermost factor of every layer, taken off them; none if they differ.
std::optional<Rotation> take_shared_rotation(std::vector<PackedLayer>& layers) {
  std::optional<Rotation> shared;
  for (const PackedLayer& layer : layers) {
    const auto* rotation = std::get_if<Rotation>(&layer.factors.back());
    if (rotation == nullptr || (shared && !(*shared == *rotation))) return std::nullopt;
    shared = *rotation;
  }
  for (PackedLayer& layer : layers) layer.factors.pop_back();
  return shared;
}

}  // namespace

Block load_running_block(const ModelWeights& weights, const ModelSpec& spec, int64_t index,
                         LinearRunner& runner, c10::Device device) {
  Block block = load_block_vectors(weights, spec, index, device);
  for (const std::string& group : spec.groups()) {
    std::vector<PackedLayer> layers;
    std::vector<std::string> suffixes;
    for (const LinearSpec& linear : spec.family->linears) {
      if (linear.group != group) continue;
      const std::string module = spec.module(index, linear);
      if (weights.is_packed(module)) {
        PackedLayer packed = weights.packed(module);
        const std::string problem = runner.unsupported(packed);
        if (problem.empty()) {
          layers.push_back(std::move(packed));
          suffixes.push_back(linear.suffix);
          continue;
        }
        log_warning(module + ": cannot be run packed (" + problem + "): it is decoded to fp32");
      }
      block.set_weight(linear.suffix, weights.linear(module, runner.threads()).to(device));
    }
    if (const auto rotation =
            whole_group(spec, group, layers.size()) ? take_shared_rotation(layers) : std::nullopt) {
      block.inputs[group] = runner.make_rotation(*rotation);
    }
    for (size_t i = 0; i < layers.size(); ++i) {
      block.linears[suffixes[i]] = runner.make(layers[i]);
      weights.release_packed(spec.block_prefix(index) + suffixes[i]);
    }
  }
  if (runner.team() != nullptr) share_linears(block, *runner.team());
  return block;
}

}  // namespace billm
