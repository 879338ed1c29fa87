// The forward pass of a block: see include/billm/model/block.h. The order of operations follows
// transformers' modeling_llama.py, modeling_qwen3.py and modeling_opt.py, so that logits agree to
// rounding.
#include "billm/model/block.h"

#include <ATen/ops/addcmul.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "billm/base/error.h"
#include "norm.h"
#include "shared_pieces.h"

namespace billm {
namespace {

at::Tensor activate(const ModelSpec& spec, const at::Tensor& x) {
  switch (spec.activation) {
    case Activation::kSilu:
      return at::silu(x);
    case Activation::kRelu:
      return at::relu(x);
    case Activation::kGelu:
      return at::gelu(x);
  }
  return {};
}

// The entry, or an undefined tensor.
at::Tensor get(const std::map<std::string, at::Tensor>& tensors, const char* name) {
  const auto found = tensors.find(name);
  return found == tensors.end() ? at::Tensor() : found->second;
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

// [queries, tokens] bool: which tokens each query sees, the queries being the last tokens; with a
// window, itself and window - 1 before.
at::Tensor causal_mask(int64_t queries, int64_t tokens, int64_t window, c10::Device device) {
  const int64_t first = tokens - queries;
  const at::Tensor mask =
      at::ones({queries, tokens}, at::TensorOptions(at::kBool).device(device)).tril(first);
  return window == 0 ? mask : mask.triu(first - window + 1);
}

// From so many tokens on, what is done for each by itself is shared among threads.
constexpr int64_t kSharedTokens = 32;
constexpr int64_t kPieceTokens = 64;

class Pass {
 public:
  // `start`: the position of the first token; `cache` (may be null) holds those before. With a
  // `step` there is one token, the step says where, and `start` is 0 as its rope has one row. With
  // a `team` no gradients are recorded.
  Pass(const ModelSpec& spec, const Block& block, const BlockCache* cache = nullptr,
       int64_t start = 0, WorkerTeam* team = nullptr, const DecodeStep* step = nullptr)
      : spec_(spec), block_(block), cache_(cache), start_(start), team_(team), step_(step) {}

  at::Tensor apply(LinearRole role, const at::Tensor& x) const {
    const LinearSpec& linear = spec_.linear(role);
    const at::Tensor bias = get(block_.biases, linear.suffix);
    const LinearOperator& product = *block_.linears.at(linear.suffix);
    return bias.defined() ? product.apply_with_bias(x, bias) : product.apply(x);
  }

  // The input of the linears of a role's group, as they take it.
  at::Tensor input(LinearRole role, const at::Tensor& x) const {
    const auto found = block_.inputs.find(spec_.linear(role).group);
    return found == block_.inputs.end() ? x : found->second->apply(x);
  }

  // x itself if the family has no such norm.
  at::Tensor normed(NormRole role, const at::Tensor& x) const {
    const NormSpec* found = spec_.find(role);
    if (found == nullptr) return x;
    const at::Tensor weight = get(block_.norms, found->suffix);
    const at::Tensor bias = get(block_.biases, found->suffix);
    return by_tokens(x.size(0), 0, x.sizes(), [&](int64_t first, int64_t count) {
      return norm(spec_, x.narrow(0, first, count), weight, bias);
    });
  }

  // x [tokens, width] of the tokens from `first` on -> queries or keys [heads, tokens, head_dim].
  at::Tensor heads(LinearRole linear, NormRole norm, const at::Tensor& x, int64_t count,
                   const Rope& rope, int64_t first) const {
    const int64_t tokens = x.size(0), d = spec_.config.head_dim;
    const at::Tensor flat = normed(norm, apply(linear, x).view({tokens, count, d}));
    return by_tokens(tokens, 1, {count, tokens, d}, [&](int64_t begin, int64_t part) {
      // Contiguous, for attention is a third faster on it.
      const at::Tensor split = flat.narrow(0, begin, part).transpose(0, 1).contiguous();
      return rope.cos.defined() ? rotate(split, rope, first + begin) : split;
    });
  }

  // The attention's output before its last linear for the tokens from `first` on:
  // [tokens - first, heads * head_dim].
  at::Tensor attention(const at::Tensor& x, const Rope& rope, int64_t first) const {
    const int64_t query_heads = spec_.config.num_attention_heads;
    const int64_t kv_heads = spec_.config.num_key_value_heads, d = spec_.config.head_dim;
    const int64_t queries = x.size(0) - first, group = query_heads / kv_heads;
    const at::Tensor late = first == 0 ? x : x.narrow(0, first, queries);
    const at::Tensor q =
        heads(LinearRole::kQuery, NormRole::kQuery, late, query_heads, rope, start_ + first);
    at::Tensor k = heads(LinearRole::kKey, NormRole::kKey, x, kv_heads, rope, start_);
    at::Tensor v = apply(LinearRole::kValue, x).view({x.size(0), kv_heads, d}).transpose(0, 1);
    // Contiguous, for attention is a third faster on it; a cache is.
    if (cache_ == nullptr) v = v.contiguous();
    if (cache_ != nullptr) {
      k = appended(cache_->keys, k);
      v = appended(cache_->values, v);
    }
    const int64_t window = block_.window;
    // Keys that lie before every query's window are left out (a step's are masked).
    const bool all = window == 0 || step_ != nullptr;
    const int64_t keys = all ? k.size(1) : std::min(k.size(1), queries + window - 1);
    k = k.narrow(1, k.size(1) - keys, keys);
    v = v.narrow(1, v.size(1) - keys, keys);
    if (queries == 1) {  // sees all of them: the heads that share keys are so many queries
      std::optional<at::Tensor> seen;
      if (step_ != nullptr) seen = step_->masks.at(window);
      return at::scaled_dot_product_attention(q.view({1, kv_heads, group, d}), k.unsqueeze(0),
                                              v.unsqueeze(0), seen)
          .reshape({1, query_heads * d});
    }
    // Heads that share keys are a second dimension, along which keys and values are not copied.
    const auto shared = [&](const at::Tensor& kv) {
      return kv.unsqueeze(1).expand({kv_heads, group, keys, d});
    };
    std::optional<at::Tensor> mask;
    if (queries < keys || (window > 0 && window < keys)) {
      mask = causal_mask(queries, keys, window, x.device());
    }
    if (team_ != nullptr && queries >= kSharedTokens) {
      const at::Tensor out = at::empty({queries, query_heads, d}, q.options());
      share_pieces(*team_, query_heads, [&](int64_t head, int) {
        const auto alone = [](const at::Tensor& heads, int64_t index) {
          return heads.narrow(0, index, 1).unsqueeze(0);
        };
        out.select(1, head).copy_(
            at::scaled_dot_product_attention(alone(q, head), alone(k, head / group),
                                             alone(v, head / group), mask, /*dropout_p=*/0.0,
                                             /*is_causal=*/!mask.has_value())
                .view({queries, d}));
      });
      return out.view({queries, query_heads * d});
    }
    const at::Tensor out = at::scaled_dot_product_attention(
        q.view({kv_heads, group, queries, d}), shared(k), shared(v), mask, /*dropout_p=*/0.0,
        /*is_causal=*/!mask.has_value());
    return out.permute({2, 0, 1, 3}).reshape({queries, query_heads * d});
  }

  // The input of the MLP's last linear.
  at::Tensor middle(const at::Tensor& x) const {
    if (spec_.find(LinearRole::kGate) == nullptr) {
      const at::Tensor up = apply(LinearRole::kUp, x);
      return by_tokens(x.size(0), 0, up.sizes(), [&](int64_t first, int64_t count) {
        return activate(spec_, up.narrow(0, first, count));
      });
    }
    const at::Tensor gate = apply(LinearRole::kGate, x);
    const at::Tensor up = apply(LinearRole::kUp, x);
    return by_tokens(x.size(0), 0, gate.sizes(), [&](int64_t first, int64_t count) {
      at::Tensor active = activate(spec_, gate.narrow(0, first, count));
      const at::Tensor factor = up.narrow(0, first, count);
      // The gradient of some activations needs their result.
      return active.requires_grad() ? active.mul(factor) : active.mul_(factor);
    });
  }

 private:
  // A tensor of `sizes`, whose dimension `dim` is the tokens; part(first, count) makes those of
  // some tokens.
  template <typename Part>
  at::Tensor by_tokens(int64_t tokens, int64_t dim, at::IntArrayRef sizes, Part part) const {
    if (team_ == nullptr || tokens < kSharedTokens) return part(0, tokens);
    const at::Tensor result =
        at::empty(sizes, at::TensorOptions(at::kFloat).device(c10::Device(c10::kCPU)));
    // Pieces that do not depend on the threads: ATen rounds what does not fill a vector otherwise.
    share_pieces(*team_, (tokens + kPieceTokens - 1) / kPieceTokens, [&](int64_t i, int) {
      const int64_t first = i * kPieceTokens, count = std::min(kPieceTokens, tokens - first);
      result.narrow(dim, first, count).copy_(part(first, count));
    });
    return result;
  }

  // Writes `fresh` [kv_heads, tokens, d] behind what a cache holds; all that it holds then, or the
  // span of a step.
  at::Tensor appended(const at::Tensor& cached, const at::Tensor& fresh) const {
    if (step_ != nullptr) {
      at::Tensor slots = cached;
      slots.index_copy_(1, step_->position, fresh);
      return cached.narrow(1, 0, step_->masks.begin()->second.size(3));
    }
    cached.narrow(1, start_, fresh.size(1)).copy_(fresh);
    return cached.narrow(1, 0, start_ + fresh.size(1));
  }

  const ModelSpec& spec_;
  const Block& block_;
  const BlockCache* cache_;
  const int64_t start_;
  WorkerTeam* const team_;
  const DecodeStep* step_;
};

// A point at the linears of a role's group.
BlockPoint point_at(const ModelSpec& spec, LinearRole role, at::Tensor input, at::Tensor stream) {
  return {spec.linear(role).group, std::move(input), std::move(stream)};
}

BlockPoint enter(const ModelSpec& spec, const Pass& pass, const at::Tensor& hidden) {
  const bool before = spec.config.norm_before;
  return point_at(spec, LinearRole::kQuery,
                  before ? pass.normed(NormRole::kAttention, hidden) : hidden, hidden);
}

// Through the linears at which the point stands, to the next ones or behind the block. Of the
// tokens before `first` nothing is left behind the attention.
BlockPoint step(const ModelSpec& spec, const Pass& pass, const Rope& rope, int64_t first,
                BlockPoint point) {
  const bool before = spec.config.norm_before;
  const auto at_linears = [&](LinearRole role) { return point.group == spec.linear(role).group; };
  if (at_linears(LinearRole::kQuery)) {
    at::Tensor x = pass.attention(pass.input(LinearRole::kQuery, point.input), rope, first);
    const at::Tensor& hidden = point.stream;
    return point_at(spec, LinearRole::kAttentionOut, std::move(x),
                    first == 0 ? hidden : hidden.narrow(0, first, hidden.size(0) - first));
  }
  if (at_linears(LinearRole::kAttentionOut)) {
    at::Tensor result =
        pass.apply(LinearRole::kAttentionOut, pass.input(LinearRole::kAttentionOut, point.input))
            .add_(point.stream);
    if (!before) result = pass.normed(NormRole::kAttention, result);
    return point_at(spec, LinearRole::kUp, before ? pass.normed(NormRole::kMlp, result) : result,
                    result);
  }
  if (at_linears(LinearRole::kUp)) {
    at::Tensor middle = pass.middle(pass.input(LinearRole::kUp, point.input));
    return point_at(spec, LinearRole::kDown, std::move(middle), std::move(point.stream));
  }
  const at::Tensor down = pass.apply(LinearRole::kDown, pass.input(LinearRole::kDown, point.input));
  const at::Tensor& stream = point.stream;
  if (!before) return {"", pass.normed(NormRole::kMlp, stream.add(down)), {}};
  // In place, but not where a gradient still needs the norm's input.
  return {"", stream.requires_grad() ? stream.add(down) : stream.add_(down), {}};
}

void walk(const ModelSpec& spec, const Pass& pass, const Rope& rope, int64_t first,
          const std::string& group, BlockPoint* point) {
  while (point->group != group) {
    if (point->group.empty()) {
      throw Error(ErrorCode::kFailure, "forward pass: " + group + " lies behind");
    }
    *point = step(spec, pass, rope, first, std::move(*point));
  }
}

at::Tensor run(const ModelSpec& spec, const Pass& pass, const at::Tensor& hidden, const Rope& rope,
               int64_t first) {
  BlockPoint point = enter(spec, pass, hidden);
  walk(spec, pass, rope, first, "", &point);
  return point.input;
}

}  // namespace

at::Tensor forward_block(const ModelSpec& spec, const Block& block, const at::Tensor& hidden,
                         const Rope& rope, int64_t first) {
  return run(spec, Pass(spec, block), hidden, rope, first);
}

BlockPoint enter_block(const ModelSpec& spec, const Block& block, const at::Tensor& hidden) {
  return enter(spec, Pass(spec, block), hidden);
}

void walk_block(const ModelSpec& spec, const Block& block, const Rope& rope,
                const std::string& group, BlockPoint* point) {
  walk(spec, Pass(spec, block), rope, 0, group, point);
}

at::Tensor forward_cached(const ModelSpec& spec, const Block& block, const at::Tensor& hidden,
                          const Rope& rope, const BlockCache& cache, int64_t start,
                          WorkerTeam* team) {
  return run(spec, Pass(spec, block, &cache, start, team), hidden, rope, 0);
}

DecodeStep make_decode_step(const ModelSpec& spec, const Rope& rope, const at::Tensor& position,
                            int64_t span) {
  DecodeStep step;
  step.position = position;
  if (rope.cos.defined()) {
    step.rope = {rope.cos.index_select(0, position), rope.sin.index_select(0, position)};
  }
  const at::Tensor slots = at::arange(span, position.options());
  for (const int64_t window : spec.config.windows) {
    if (step.masks.count(window) != 0) continue;
    at::Tensor hidden = slots.gt(position);
    if (window > 0) hidden = hidden.logical_or(slots.le(position.sub(window)));
    step.masks[window] = at::zeros({span}, position.options().dtype(at::kFloat))
                             .masked_fill_(hidden, -std::numeric_limits<float>::infinity())
                             .view({1, 1, 1, span});
  }
  return step;
}

at::Tensor decode_step(const ModelSpec& spec, const Block& block, const at::Tensor& hidden,
                       const DecodeStep& step, const BlockCache& cache) {
  return run(spec, Pass(spec, block, &cache, 0, nullptr, &step), hidden, step.rope, 0);
}

}  // namespace billm
