// The forward pass of a block: see include/billm/model/block.h. The order of operations follows
// transformers' modeling_llama.py, so that logits agree to rounding.
#include "billm/model/block.h"

#include <ATen/ops/addcmul.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/silu.h>

#include <algorithm>

namespace billm {
namespace {

// x * rsqrt(mean(x^2) + eps) * weight, by row.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor mean_square = x.pow(2).mean(at::IntArrayRef{-1}, /*keepdim=*/true);
  return x.mul(mean_square.add_(eps).rsqrt_()).mul_(weight);
}

at::Tensor norm(const ModelSpec& spec, const at::Tensor& x, const at::Tensor& weight) {
  switch (spec.family->norm) {
    case NormKind::kRms:
      return rms_norm(x, weight, spec.config.rms_norm_eps);
  }
  return {};  // not reached: every kind returns
}

at::Tensor activate(const ModelSpec& spec, const at::Tensor& x) {
  switch (spec.family->activation) {
    case Activation::kSilu:
      return at::silu(x);
  }
  return {};
}

// x [tokens, heads * d] -> [heads, tokens, d], contiguous (attention is a third faster on it).
at::Tensor split_heads(const at::Tensor& x, int64_t heads) {
  return x.view({x.size(0), heads, x.size(1) / heads}).transpose(0, 1).contiguous();
}

// x [heads, tokens, d], tokens from position `first` on: (a, b) -> (a cos - b sin, b cos + a sin),
// where a and b are the halves of d.
at::Tensor rotate(const at::Tensor& x, const Rope& rope, int64_t first) {
  const int64_t half = x.size(2) / 2;
  const at::Tensor a = x.narrow(2, 0, half), b = x.narrow(2, half, half);
  const at::Tensor cos = rope.cos.narrow(0, first, x.size(1));
  const at::Tensor sin = rope.sin.narrow(0, first, x.size(1));
  return at::cat({a.mul(cos).addcmul_(b, sin, -1), b.mul(cos).addcmul_(a, sin)}, 2);
}

// [queries, tokens] bool: which tokens each query sees, the queries being the last tokens.
at::Tensor causal_mask(int64_t queries, int64_t tokens, c10::Device device) {
  return at::ones({queries, tokens}, at::TensorOptions(at::kBool).device(device))
      .tril(tokens - queries);
}

class Pass {
 public:
  Pass(const ModelSpec& spec, const Block& block, const Tap& tap)
      : spec_(spec), block_(block), tap_(tap) {}

  bool tap(LinearRole role, const at::Tensor& input) const {
    return !tap_ || tap_(spec_.linear(role).group, input);
  }
  at::Tensor apply(LinearRole role, const at::Tensor& x) const {
    return at::mm(x, block_.linears.at(spec_.linear(role).suffix).t());
  }

  // The attention's output before its last linear for the tokens from `first` on:
  // [tokens - first, heads * head_dim].
  at::Tensor attention(const at::Tensor& x, const Rope& rope, int64_t first) const {
    const int64_t heads = spec_.config.num_attention_heads;
    const int64_t kv_heads = spec_.config.num_key_value_heads;
    const int64_t tokens = x.size(0), d = spec_.config.head_dim, queries = tokens - first;
    // Heads that share keys are a second dimension, along which keys and values are not copied.
    const at::Tensor late = first == 0 ? x : x.narrow(0, first, queries);
    const at::Tensor q = rotate(split_heads(apply(LinearRole::kQuery, late), heads), rope, first)
                             .view({kv_heads, heads / kv_heads, queries, d});
    const auto shared = [&](const at::Tensor& kv) {
      return kv.unsqueeze(1).expand({kv_heads, heads / kv_heads, tokens, d});
    };
    const at::Tensor k = rotate(split_heads(apply(LinearRole::kKey, x), kv_heads), rope, 0);
    const at::Tensor v = split_heads(apply(LinearRole::kValue, x), kv_heads);
    std::optional<at::Tensor> mask;
    if (first > 0) mask = causal_mask(queries, tokens, x.device());
    const at::Tensor out = at::scaled_dot_product_attention(q, shared(k), shared(v), mask,
                                                            /*dropout_p=*/0.0,
                                                            /*is_causal=*/first == 0);
    return out.permute({2, 0, 1, 3}).reshape({queries, heads * d});
  }

 private:
  const ModelSpec& spec_;
  const Block& block_;
  const Tap& tap_;
};

}  // namespace

int64_t Block::bytes() const {
  int64_t total = static_cast<int64_t>(attention_norm.nbytes() + mlp_norm.nbytes());
  for (const auto& [suffix, weight] : linears) total += static_cast<int64_t>(weight.nbytes());
  return total;
}

Block load_block(const ModelWeights& weights, const ModelSpec& spec, int64_t index, int threads,
                 c10::Device device) {
  const std::string prefix = spec.block_prefix(index);
  Block block;
  block.attention_norm = weights.dense(prefix + spec.family->attention_norm, 1).to(device);
  block.mlp_norm = weights.dense(prefix + spec.family->mlp_norm, 1).to(device);
  for (const LinearSpec& linear : spec.family->linears) {
    block.linears[linear.suffix] = weights.linear(spec.module(index, linear), threads).to(device);
  }
  return block;
}

Rope make_rope(const ModelSpec& spec, int64_t length, c10::Device device) {
  check_length(spec, length);
  const int64_t d = spec.config.head_dim;
  // In fp32 throughout, as transformers does: at position 2000 that differs from fp64 by 1e-4.
  const at::Tensor exponent = at::arange(0, d, 2, at::kFloat).div(static_cast<double>(d));
  const at::Tensor frequency = at::pow(spec.config.rope_theta, exponent).reciprocal();
  const at::Tensor angle =
      at::arange(0, length, at::kFloat).unsqueeze(1).mul(frequency.unsqueeze(0));
  return {angle.cos().to(device), angle.sin().to(device)};
}

at::Tensor forward_block(const ModelSpec& spec, const Block& block, const at::Tensor& hidden,
                         const Rope& rope, const Tap& tap, int64_t first) {
  const Pass pass(spec, block, tap);
  at::Tensor result;
  {
    at::Tensor x = norm(spec, hidden, block.attention_norm);
    if (!pass.tap(LinearRole::kQuery, x)) return {};
    x = pass.attention(x, rope, first);
    if (!pass.tap(LinearRole::kAttentionOut, x)) return {};
    result = pass.apply(LinearRole::kAttentionOut, x)
                 .add_(first == 0 ? hidden : hidden.narrow(0, first, hidden.size(0) - first));
  }
  at::Tensor x = norm(spec, result, block.mlp_norm);
  if (!pass.tap(LinearRole::kGate, x)) return {};
  at::Tensor middle = activate(spec, pass.apply(LinearRole::kGate, x));
  middle.mul_(pass.apply(LinearRole::kUp, x));
  x.reset();
  if (!pass.tap(LinearRole::kDown, middle)) return {};
  const at::Tensor down = pass.apply(LinearRole::kDown, middle);
  // In place, but not where a gradient still needs the norm's input.
  return result.requires_grad() ? result.add(down) : result.add_(down);
}

at::Tensor embed(const ModelWeights& weights, const ModelSpec& spec,
                 std::span<const int32_t> tokens) {
  return weights.gather(spec.family->embed, tokens);
}

at::Tensor final_norm(const ModelSpec& spec, const at::Tensor& weight, const at::Tensor& hidden) {
  return norm(spec, hidden, weight);
}

at::Tensor logits(const ModelWeights& weights, const ModelSpec& spec, const at::Tensor& normed) {
  const int64_t vocab = spec.config.vocab_size, width = spec.config.hidden_size;
  const int64_t piece = std::max<int64_t>(1, kHeadPieceBytes / (4 * width));
  at::Tensor result = at::empty({normed.size(0), vocab}, normed.options());
  for (int64_t first = 0; first < vocab; first += piece) {
    const int64_t count = std::min(piece, vocab - first);
    const at::Tensor head = weights.rows(spec.head(), first, count).to(normed.device());
    at::Tensor part = result.narrow(1, first, count);
    at::mm_out(part, normed, head.t());
  }
  return result;
}

}  // namespace billm
