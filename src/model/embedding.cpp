// What stands before the first block and behind the last one: see include/billm/model/block.h.
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <algorithm>

#include "billm/model/block.h"
#include "norm.h"

namespace billm {

Embedding::Embedding(const ModelWeights& weights, const ModelSpec& spec)
    : weights_(weights), spec_(spec) {
  if (spec.has_projections()) {
    project_in_ = weights.dense(spec.base + spec.family->project_in + ".weight", 1);
  }
}

at::Tensor Embedding::operator()(std::span<const int32_t> tokens, int64_t start) const {
  at::Tensor hidden = weights_.gather(spec_.embed, tokens);
  weights_.release(spec_.embed);
  if (project_in_.defined()) hidden = at::mm(hidden, project_in_.t());
  if (spec_.family->position == PositionKind::kLearned) {
    const std::string positions = spec_.base + spec_.family->positions + ".weight";
    hidden.add_(
        weights_.rows(positions, kPositionOffset + start, static_cast<int64_t>(tokens.size())));
    weights_.release(positions);
  }
  return hidden;
}

FinalLayers load_final_layers(const ModelWeights& weights, const ModelSpec& spec,
                              c10::Device device) {
  FinalLayers layers;
  const auto load = [&](const std::string& name) { return weights.dense(name, 1).to(device); };
  if (spec.has_final_norm()) {
    if (spec.norms_have_weights()) layers.norm = load(spec.final_norm() + ".weight");
    if (spec.norms_have_biases()) layers.norm_bias = load(spec.final_norm() + ".bias");
  }
  if (spec.has_projections()) {
    layers.project_out = load(spec.base + spec.family->project_out + ".weight");
  }
  return layers;
}

at::Tensor final_states(const ModelSpec& spec, const FinalLayers& layers,
                        const at::Tensor& hidden) {
  at::Tensor states = hidden;
  if (spec.has_final_norm()) states = norm(spec, states, layers.norm, layers.norm_bias);
  if (layers.project_out.defined()) states = at::mm(states, layers.project_out.t());
  return states;
}

at::Tensor logits(const ModelWeights& weights, const ModelSpec& spec, const at::Tensor& states) {
  const int64_t vocab = spec.config.vocab_size, width = spec.config.embed_width;
  const int64_t piece = std::max<int64_t>(1, kHeadPieceBytes / (4 * width));
  at::Tensor result = at::empty({states.size(0), vocab}, states.options());
  for (int64_t first = 0; first < vocab; first += piece) {
    const int64_t count = std::min(piece, vocab - first);
    const at::Tensor head = weights.rows(spec.head, first, count).to(states.device());
    at::Tensor part = result.narrow(1, first, count);
    at::mm_out(part, states, head.t());
  }
  return result;
}

}  // namespace billm
