// A model family as data: tensor names, the linears of a block and what they read, and the kinds of
// norm, activation and rotary embedding. A new family is one row in src/model/family.cpp, unless it
// needs a kind that block.cpp does not compute yet.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "billm/checkpoint/checkpoint.h"
#include "billm/checkpoint/config.h"
#include "billm/pack/packed_checkpoint.h"

namespace billm {

// What a linear does in the block; forward_block() looks its linears up by role.
enum class LinearRole : uint8_t { kQuery, kKey, kValue, kAttentionOut, kGate, kUp, kDown };

enum class NormKind : uint8_t { kRms };
enum class Activation : uint8_t { kSilu };
enum class RopeKind : uint8_t { kRotateHalf };  // halves of a head are rotated against each other

struct LinearSpec {
  LinearRole role;
  const char* suffix;                        // "self_attn.q_proj", below the block's prefix
  const char* group;                         // linears with the same group read the same input
  int64_t (*out_width)(const ModelConfig&);  // weight [out_width, in_width]
  int64_t (*in_width)(const ModelConfig&);
};

struct Family {
  std::vector<std::string> architectures;  // config.json "architectures" that are computed this way
  const char* embed;                       // tensor [vocab, hidden]
  const char* block_prefix;                // block i is "<block_prefix><i>."
  const char* attention_norm;              // tensor [hidden], below the block's prefix
  const char* mlp_norm;                    // tensor [hidden], below the block's prefix
  const char* final_norm;                  // tensor [hidden]
  const char* head;                        // tensor [vocab, hidden]; the embedding if they are tied
  NormKind norm;
  Activation activation;
  RopeKind rope;
  int64_t default_window;           // sliding window where config.json is silent; 0: none
  std::vector<LinearSpec> linears;  // in the order in which a block applies them
};

// A family together with one model's configuration.
struct ModelSpec {
  const Family* family = nullptr;
  ModelConfig config;

  int64_t blocks() const { return config.num_hidden_layers; }
  std::string block_prefix(int64_t block) const;
  std::string module(int64_t block, const LinearSpec& linear) const;
  const LinearSpec& linear(LinearRole role) const;
  // The input groups in the order in which a block computes them.
  std::vector<std::string> groups() const;
  const char* head() const { return config.tie_word_embeddings ? family->embed : family->head; }
};

// The row for the model's architecture. Throws Error{kBadInput} for an architecture without a row
// (the message lists those that have one) and for settings that would be computed wrongly: scaled
// rope, biases, an activation other than the family's, head counts that do not divide.
ModelSpec model_spec(const ModelConfig& config, const std::string& where);

// Throws Error{kBadInput} unless every tensor of the model exists with its shape. `packed` is null
// for a dense model.
void check_model(const Checkpoint& checkpoint, const ModelSpec& spec, const PackedModules* packed);

// Throws Error{kBadInput} if sequences of `length` tokens would need what is not computed (a
// sliding window shorter than the sequence).
void check_length(const ModelSpec& spec, int64_t length);

}  // namespace billm
