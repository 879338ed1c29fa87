// A model family as data: tensor names, the linears of a block and what they read, and the kinds of
// norm and position. A new family is one row in src/model/family.cpp, unless it needs a kind that
// block.cpp does not compute yet.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "billm/checkpoint/checkpoint.h"
#include "billm/checkpoint/config.h"
#include "billm/pack/packed_checkpoint.h"

namespace billm {

// What a linear does in the block; forward_block() looks its linears up by role. An MLP without
// kGate is kDown(activation(kUp(x))), else kDown(activation(kGate(x)) * kUp(x)).
enum class LinearRole : uint8_t { kQuery, kKey, kValue, kAttentionOut, kGate, kUp, kDown };

// kQuery and kKey: of every head by itself, before the rotary embedding.
enum class NormRole : uint8_t { kAttention, kMlp, kQuery, kKey };

enum class NormKind : uint8_t {
  kRms,    // x / rms(x) * weight
  kLayer,  // (x - mean(x)) / deviation(x) * weight + bias; both only if config.norm_affine
};

enum class PositionKind : uint8_t {
  kRotary,   // the halves of a query's or key's head are rotated against each other
  kLearned,  // a row of a table is added to each embedding
};

enum class Activation : uint8_t { kSilu, kRelu, kGelu };

struct LinearSpec {
  LinearRole role;
  const char* suffix;                        // "self_attn.q_proj", below the block's prefix
  const char* group;                         // linears with the same group read the same input
  int64_t (*out_width)(const ModelConfig&);  // weight [out_width, in_width]
  int64_t (*in_width)(const ModelConfig&);
  bool (*has_bias)(const ModelConfig&);  // [out_width]
};

// The linears of an input group together.
struct GroupShape {
  int64_t cols = 0;         // of the input that they share
  int64_t rows = 0;         // of all of them
  int64_t stream_rows = 0;  // of the residual stream, if their output is added to it; else 0
};

struct NormSpec {
  NormRole role;
  const char* suffix;  // below the block's prefix
  int64_t (*width)(const ModelConfig&);
};

// Names of modules; their tensors are "<module>.weight" and "<module>.bias". All but the head stand
// below the base model's prefix, "model.".
struct Family {
  const char* model_type;                  // config.json "model_type" of all these architectures
  std::vector<std::string> architectures;  // config.json "architectures" that are computed this way
  const char* embed;                       // [vocab, embed_width]
  const char* positions;                   // [positions + kPositionOffset, hidden]; "": rotary
  const char* project_in;                  // [hidden, embed_width], where these differ; "": never
  const char* project_out;                 // [embed_width, hidden]
  const char* blocks;                      // block i is "<blocks>.<i>."
  const char* final_norm;                  // [hidden]
  const char* head;                        // [vocab, embed_width]; the embedding if they are tied
  NormKind norm;
  PositionKind position;
  std::vector<NormSpec> norms;
  std::vector<LinearSpec> linears;  // in the order in which a block applies them
};

// The table: every family there is.
std::span<const Family> families();

// OPT's table of positions starts with two rows that no token uses.
inline constexpr int64_t kPositionOffset = 2;

// A family together with one model's configuration and the names of its tensors.
struct ModelSpec {
  const Family* family = nullptr;
  ModelConfig config;
  Activation activation = Activation::kSilu;
  std::string base = "model.";  // "" in files that were saved from the base model
  std::string embed, head;      // tensors; the same one if they are tied

  int64_t blocks() const { return config.num_hidden_layers; }
  std::string block_prefix(int64_t block) const;
  std::string module(int64_t block, const LinearSpec& linear) const;
  std::vector<std::string> modules() const;         // of all linears, block by block
  const LinearSpec& linear(LinearRole role) const;  // the family has one
  const LinearSpec* find(LinearRole role) const;    // null if it has none
  const NormSpec* find(NormRole role) const;
  // The input groups in the order in which a block computes them.
  std::vector<std::string> groups() const;
  GroupShape group_shape(const std::string& group) const;
  bool norms_have_weights() const;
  bool norms_have_biases() const;
  bool has_final_norm() const;
  bool has_projections() const { return config.embed_width != config.hidden_size; }
  std::string final_norm() const { return base + family->final_norm; }  // a module
};

// The row for the model's architecture, tensors named as transformers names them. Throws
// Error{kBadInput} for an architecture without a row (the message lists those that have one) and
// for settings that would be computed wrongly: a scaling of the rotary embedding or an activation
// that is not known.
ModelSpec model_spec(const ModelConfig& config, const std::string& where);

// model_spec() of the checkpoint, tensors named as they are there: with or without the base
// model's prefix; of tied tensors, both where both are there, as in transformers.
ModelSpec model_spec(const Checkpoint& checkpoint);

// Throws Error{kBadInput} unless every tensor of the model exists with its shape, and for a bias
// that the family does not have. `packed` is null for a dense model.
void check_model(const Checkpoint& checkpoint, const ModelSpec& spec, const PackedModules* packed);

// Weights of the linears of all blocks: those that are quantized.
int64_t quantized_weights(const ModelSpec& spec);

// How many weights of the model are not those of the blocks' linears: embeddings, head, norms,
// biases. Tied ones count once.
int64_t other_weights(const ModelSpec& spec);

// To be called once before sequences of `length` tokens are computed. Throws Error{kBadInput} if
// there are not as many learned positions; warns (base/log.h) where rotary positions go beyond
// max_position_embeddings.
void check_length(const ModelSpec& spec, int64_t length);

}  // namespace billm
