// See kl_head.h. The head is never held whole in fp32, so its gradient is written out: with q and p
// the two distributions, d KL / d logits = q - p.
#include "kl_head.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <utility>

#include "billm/calibrate/collect.h"

namespace billm {
namespace {

// x [tokens, vocab] times the head [vocab, embed_width], in pieces of the head.
at::Tensor times_head(const ModelWeights& original, const ModelSpec& spec, const at::Tensor& x) {
  const int64_t vocab = spec.config.vocab_size, width = spec.config.embed_width;
  const int64_t piece = std::max<int64_t>(1, kHeadPieceBytes / (4 * width));
  at::Tensor sum;
  for (int64_t first = 0; first < vocab; first += piece) {
    const int64_t count = std::min(piece, vocab - first);
    const at::Tensor head = original.rows(spec.head, first, count).to(x.device());
    const at::Tensor part = at::mm(x.narrow(1, first, count), head);
    sum = sum.defined() ? sum.add_(part) : part;
  }
  return sum;
}

}  // namespace

std::vector<at::Tensor> teacher_states(const ModelWeights& original, const ModelSpec& spec,
                                       const Rope& rope, std::vector<at::Tensor> hidden,
                                       int threads, c10::Device device) {
  for (int64_t b = 0; b < spec.blocks(); ++b) {
    advance(spec, load_block(original, spec, b, threads, device), rope, hidden, threads);
  }
  const FinalLayers last = load_final_layers(original, spec, device);
  for (at::Tensor& states : hidden) states = final_states(spec, last, states);
  return hidden;
}

KlHead kl_head(const ModelWeights& original, const ModelSpec& spec, const at::Tensor& hidden,
               const FinalLayers& last, const at::Tensor& teacher, bool gradients) {
  KlHead result;
  at::Tensor leaf, outputs;
  FinalLayers layers = last;
  {
    const at::AutoGradMode mode(gradients);
    leaf = hidden.detach().set_requires_grad(gradients);
    if (last.norm.defined()) {
      layers.norm = last.norm.detach().clone().set_requires_grad(gradients);
    }
    outputs = final_states(spec, layers, leaf);
  }
  const at::NoGradGuard no_grad;
  const int64_t tokens = hidden.size(0);
  const at::Tensor states = outputs.detach();
  at::Tensor gradient = gradients ? at::zeros_like(states) : at::Tensor();
  for (int64_t row = 0; row < tokens; row += kKlHeadRows) {
    const int64_t count = std::min(kKlHeadRows, tokens - row);
    const auto log_distribution = [&](const at::Tensor& x) {
      return at::log_softmax(logits(original, spec, x.narrow(0, row, count)), 1);
    };
    const at::Tensor log_q = log_distribution(states), log_p = log_distribution(teacher);
    const at::Tensor p = log_p.exp();
    result.loss += log_p.sub(log_q).mul_(p).sum().item<double>();
    if (!gradients) continue;
    const at::Tensor of_logits = log_q.exp().sub_(p).div_(static_cast<double>(tokens));
    gradient.narrow(0, row, count).copy_(times_head(original, spec, of_logits));
  }
  result.loss /= static_cast<double>(tokens);
  if (gradients) {
    const at::AutoGradMode mode(true);
    std::vector<at::Tensor> variables = {leaf};
    if (layers.norm.defined()) variables.push_back(layers.norm);
    const auto found = torch::autograd::grad({outputs}, variables, {gradient});
    result.hidden = found[0];
    if (layers.norm.defined()) result.norm = found[1];
  }
  return result;
}

}  // namespace billm
