// ModelConfig: the facts of a HuggingFace config.json, checked. What they mean for an architecture
// is the model folder's business.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace billm {

// How the angles of a rotary embedding are stretched beyond the positions of the pretraining.
struct RopeScaling {
  std::string type;   // "" = none; "linear", "dynamic", "llama3", "yarn", ...
  double factor = 1;  // of linear, dynamic and llama3, as what follows of llama3; others: unset
  double low_frequency = 1, high_frequency = 4;
  int64_t original_positions = 0;
};

struct ModelConfig {
  // Required in the file.
  std::string architecture;  // architectures[0], "LlamaForCausalLM"
  std::string model_type;    // "llama"
  int64_t hidden_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t vocab_size = 0;
  int64_t intermediate_size = 0;  // of the MLP; OPT calls it ffn_dim

  // Optional; where the file is silent: what transformers' configuration class of this model_type
  // takes (the table in src/checkpoint/config.cpp). null counts as silent, but for sliding_window
  // and num_key_value_heads, as there. `raw` tells the difference.
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 2048;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;  // rope_theta, or rope_parameters.rope_theta
  RopeScaling rope_scaling;
  std::vector<int64_t> windows;  // of each layer: a token sees itself and windows[i] - 1 before; 0:
                                 // all before
  bool tie_word_embeddings = false;
  bool attention_bias = false;
  bool mlp_bias = false;
  std::string hidden_act = "silu";  // hidden_act, or OPT's activation_function
  std::optional<int64_t> bos_token_id;
  std::vector<int64_t> eos_token_ids;  // one number or a list in the file; negative ones left out
  std::string torch_dtype;             // dtype or torch_dtype: "float16"; "" if not stated

  // OPT's own; of others the defaults.
  int64_t embed_width = 0;  // word_embed_proj_dim: of the embedding and the head; hidden_size
  bool norm_before = true;  // do_layer_norm_before: norms read a block's stream, or close it
  bool remove_final_norm = false;  // _remove_final_layer_norm
  bool enable_bias = true;         // of the linears
  bool norm_affine = true;         // layer_norm_elementwise_affine: norms have weights and biases

  nlohmann::json quantization_config;  // null if absent
  nlohmann::json raw;                  // the whole file
};

// Throws Error{kBadInput}: "FILE: key: expected ..., got ...". `file` starts every message.
ModelConfig parse_config(std::string_view text, const std::string& file);
ModelConfig read_config(const std::filesystem::path& path);

}  // namespace billm
