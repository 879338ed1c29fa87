// One transformer block in fp32 and its forward pass for one sequence, as transformers computes it.
//
// Activation memory of forward_block at its largest, besides its argument, for T tokens:
// 4 * T * max(hidden + 3 * heads * head_dim + 2 * kv_heads * head_dim, 2 * hidden + 2 *
// intermediate) bytes. Attention is computed tile by tile, never [heads, T, T]; a window shorter
// than the sequence adds a mask of 5 * T * T bytes. The C library and MKL keep about 40 MB more in
// each thread that has run it (measured with blocks of 45 million weights).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "billm/model/family.h"
#include "billm/model/kv_cache.h"
#include "billm/model/linear_operator.h"
#include "billm/model/weights.h"

namespace billm {

struct Block {
  int64_t window = 0;  // ModelConfig::windows of this block
  // By suffix (NormSpec, LinearSpec), what the model has of them:
  std::map<std::string, at::Tensor> norms;   // weight [width]
  std::map<std::string, at::Tensor> biases;  // of norms [width] and linears [out]
  std::map<std::string, std::shared_ptr<const LinearOperator>> linears;
  // By input group (LinearSpec::group): what is applied to the group's input first, once for all of
  // its linears, which do not have it: a rotation that they share. Mostly empty.
  std::map<std::string, std::shared_ptr<const LinearOperator>> inputs;

  // The weight [out, in] of a linear that is a DenseLinear; throws Error{kFailure} for another.
  const at::Tensor& weight(const std::string& suffix) const;
  // Makes it a DenseLinear of this weight, multiplied by ATen.
  void set_weight(const std::string& suffix, at::Tensor weight);
};

// Rotary factors of the positions 0..length-1: [length, head_dim / 2] each; undefined where
// positions are learned.
struct Rope {
  at::Tensor cos, sin;
};

// Where the forward pass of one sequence stands: just before the linears of a group.
struct BlockPoint {
  std::string group;  // LinearSpec::group; empty: behind the block
  at::Tensor input;   // of those linears [tokens, in]; behind the block its output [tokens, hidden]
  at::Tensor stream;  // the residual stream [tokens, hidden] to which the block will add next
};

// The weights of block `index`, converted or decoded to fp32 and moved to `device`.
Block load_block(const ModelWeights& weights, const ModelSpec& spec, int64_t index, int threads,
                 c10::Device device);

// Lets the team's threads share the products of the dense linears (on the CPU).
void share_linears(Block& block, WorkerTeam& team);

// load_block() with packed linears as operators, where `runner` (of that device) can run them; the
// others are shared by its threads.
Block load_running_block(const ModelWeights& weights, const ModelSpec& spec, int64_t index,
                         LinearRunner& runner, c10::Device device);

// load_block() but for the linears' weights, which are left out.
Block load_block_vectors(const ModelWeights& weights, const ModelSpec& spec, int64_t index,
                         c10::Device device);

// For sequences of `length` tokens: a dynamic scaling depends on it.
Rope make_rope(const ModelSpec& spec, int64_t length, c10::Device device);

// hidden [tokens, hidden] -> [tokens - first, hidden], for one sequence that starts at position 0:
// the outputs of the tokens from `first` on, the others being their context. hidden is not changed.
// Runs on the calling thread; gradients are recorded if the caller has them on (the passes of
// calibrate and eval turn them off).
at::Tensor forward_block(const ModelSpec& spec, const Block& block, const at::Tensor& hidden,
                         const Rope& rope, int64_t first = 0);

// The same pass in steps. At its start, before the first group:
BlockPoint enter_block(const ModelSpec& spec, const Block& block, const at::Tensor& hidden);
// On to the linears of `group`, which come later, or behind the block (""). Only the linears of the
// groups between and the norms of `block` are used. point->stream may be changed in place.
void walk_block(const ModelSpec& spec, const Block& block, const Rope& rope,
                const std::string& group, BlockPoint* point);

// forward_block() of the tokens at the positions start, start + 1, ... of a sequence, all before
// being in `cache`: hidden [tokens, hidden] -> [tokens, hidden]. Their keys and values are added to
// the cache, which must have room for them. `team` (may be null) shares what lies between the
// linears, which have its threads, too.
at::Tensor forward_cached(const ModelSpec& spec, const Block& block, const at::Tensor& hidden,
                          const Rope& rope, const BlockCache& cache, int64_t start,
                          WorkerTeam* team);

// The same of one token whose position only the device knows, so that a program recorded once (a
// CUDA graph) serves every position: all shapes are fixed, and `span` slots of the cache are looked
// at, of which a mask leaves those that the token sees.
struct DecodeStep {
  at::Tensor position;  // int64 [1], less than the span
  Rope rope;            // of that position: [1, head_dim / 2]
  // By Block::window: fp32 [1, 1, 1, span], 0 where the token sees a slot, -infinity elsewhere.
  std::map<int64_t, at::Tensor> masks;
};
// `rope` of at least `span` positions; all that depends on the position is computed by operations
// on the device.
DecodeStep make_decode_step(const ModelSpec& spec, const Rope& rope, const at::Tensor& position,
                            int64_t span);
// hidden [1, hidden] -> [1, hidden]. All slots of the span must hold finite numbers: what the mask
// hides is multiplied by 0.
at::Tensor decode_step(const ModelSpec& spec, const Block& block, const at::Tensor& hidden,
                       const DecodeStep& step, const BlockCache& cache);

// What stands before the first block.
class Embedding {
 public:
  // Keeps both references.
  Embedding(const ModelWeights& weights, const ModelSpec& spec);

  // What enters the first block for the tokens at the positions start, start + 1, ...: [tokens,
  // hidden] fp32 on the CPU. Rows are read from the file, whose pages do not stay in memory.
  at::Tensor operator()(std::span<const int32_t> tokens, int64_t start = 0) const;

 private:
  const ModelWeights& weights_;
  const ModelSpec& spec_;
  at::Tensor project_in_;  // [hidden, embed_width]; undefined if the model has none
};

// What stands between the last block and the output head; undefined is what the model has not.
struct FinalLayers {
  at::Tensor norm, norm_bias;  // [hidden]
  at::Tensor project_out;      // [embed_width, hidden]
};
FinalLayers load_final_layers(const ModelWeights& weights, const ModelSpec& spec,
                              c10::Device device);

// The last block's output [tokens, hidden] -> the head's input [tokens, embed_width]. May be
// `hidden` itself.
at::Tensor final_states(const ModelSpec& spec, const FinalLayers& layers, const at::Tensor& hidden);

// Logits [tokens, vocab] of final_states(). The head (or the tied embedding) is converted to
// fp32 in pieces of at most kHeadPieceBytes and never held whole.
inline constexpr int64_t kHeadPieceBytes = int64_t{16} << 20;
at::Tensor logits(const ModelWeights& weights, const ModelSpec& spec, const at::Tensor& states);

}  // namespace billm
