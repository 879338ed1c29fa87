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

struct ModelConfig {
  // Required in the file.
  std::string architecture;  // architectures[0], "LlamaForCausalLM"
  std::string model_type;    // "llama"
  int64_t hidden_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t vocab_size = 0;
  int64_t intermediate_size = 0;  // of the MLP; OPT calls it ffn_dim

  // Optional; where the file is silent (or says null): the value that follows from the others, or
  // the one that HuggingFace's LLaMA-like configurations take. `raw` tells the difference.
  int64_t num_key_value_heads = 0;  // num_attention_heads
  int64_t head_dim = 0;             // hidden_size / num_attention_heads
  int64_t max_position_embeddings = 2048;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;    // rope_theta, or rope_parameters.rope_theta
  std::string rope_scaling_type;  // "" = none; "linear", "llama3", "yarn", ...
  nlohmann::json rope_scaling;    // the object that says so, as it stands; null = none
  bool tie_word_embeddings = false;
  bool attention_bias = false;
  bool mlp_bias = false;
  std::string hidden_act = "silu";  // hidden_act, or OPT's activation_function
  std::optional<int64_t> bos_token_id;
  std::vector<int64_t> eos_token_ids;  // one number or a list in the file; negative ones left out
  std::string torch_dtype;             // dtype or torch_dtype: "float16"; "" if not stated

  nlohmann::json quantization_config;  // null if absent
  nlohmann::json raw;                  // the whole file
};

// Throws Error{kBadInput}: "FILE: key: expected ..., got ...". `file` starts every message.
ModelConfig parse_config(std::string_view text, const std::string& file);
ModelConfig read_config(const std::filesystem::path& path);

}  // namespace billm
