// One transformer block in fp32 and its forward pass for one sequence, as transformers computes it.
//
// Activation memory of forward_block at its largest, besides its argument, for T tokens:
// 4 * T * max(hidden + 3 * heads * head_dim + 2 * kv_heads * head_dim, 2 * hidden + 2 *
// intermediate) bytes. Attention is computed tile by tile, never [heads, T, T]. The C library and
// MKL keep about 40 MB more in each thread that has run it (measured with blocks of 45 million
// weights).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>

#include "billm/model/family.h"
#include "billm/model/weights.h"

namespace billm {

struct Block {
  at::Tensor attention_norm, mlp_norm;        // [hidden]
  std::map<std::string, at::Tensor> linears;  // LinearSpec::suffix -> weight [out, in]

  int64_t bytes() const;
};

// Rotary factors of the positions 0..length-1: [length, head_dim / 2] each.
struct Rope {
  at::Tensor cos, sin;
};

// Called just before the linears of a group are applied; input [tokens, in]. Whether to go on: if
// not, forward_block returns an undefined tensor at once.
using Tap = std::function<bool(const std::string& group, const at::Tensor& input)>;

// The weights of block `index`, converted or decoded to fp32 and moved to `device`.
Block load_block(const ModelWeights& weights, const ModelSpec& spec, int64_t index, int threads,
                 c10::Device device);

// Checks the length too (check_length). Device of the result: `device`.
Rope make_rope(const ModelSpec& spec, int64_t length, c10::Device device);

// hidden [tokens, hidden] -> [tokens - first, hidden], for one sequence that starts at position 0:
// the outputs of the tokens from `first` on, the others being their context. hidden is not changed.
// Runs on the calling thread; gradients are recorded if the caller has them on (the passes of
// calibrate and eval turn them off).
at::Tensor forward_block(const ModelSpec& spec, const Block& block, const at::Tensor& hidden,
                         const Rope& rope, const Tap& tap = {}, int64_t first = 0);

// Embeddings of one sequence: [tokens, hidden] fp32 on the CPU.
at::Tensor embed(const ModelWeights& weights, const ModelSpec& spec,
                 std::span<const int32_t> tokens);

// The norm before the output head: [tokens, hidden] -> [tokens, hidden]. `weight` is the tensor
// spec.family->final_norm.
at::Tensor final_norm(const ModelSpec& spec, const at::Tensor& weight, const at::Tensor& hidden);

// Logits [tokens, vocab] of normed hidden states. The head (or the tied embedding) is converted to
// fp32 in pieces of at most kHeadPieceBytes and never held whole.
inline constexpr int64_t kHeadPieceBytes = int64_t{16} << 20;
at::Tensor logits(const ModelWeights& weights, const ModelSpec& spec, const at::Tensor& normed);

}  // namespace billm
