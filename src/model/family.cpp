// The table of model families: see include/billm/model/family.h.
#include "billm/model/family.h"

#include <algorithm>
#include <span>

#include "billm/base/error.h"

namespace billm {
namespace {

int64_t hidden(const ModelConfig& config) { return config.hidden_size; }
int64_t intermediate(const ModelConfig& config) { return config.intermediate_size; }
int64_t query_width(const ModelConfig& config) {
  return config.num_attention_heads * config.head_dim;
}
int64_t kv_width(const ModelConfig& config) { return config.num_key_value_heads * config.head_dim; }

std::vector<LinearSpec> llama_linears() {
  return {
      {LinearRole::kQuery, "self_attn.q_proj", "attention_in", query_width, hidden},
      {LinearRole::kKey, "self_attn.k_proj", "attention_in", kv_width, hidden},
      {LinearRole::kValue, "self_attn.v_proj", "attention_in", kv_width, hidden},
      {LinearRole::kAttentionOut, "self_attn.o_proj", "attention_out", hidden, query_width},
      {LinearRole::kGate, "mlp.gate_proj", "mlp_in", intermediate, hidden},
      {LinearRole::kUp, "mlp.up_proj", "mlp_in", intermediate, hidden},
      {LinearRole::kDown, "mlp.down_proj", "mlp_middle", hidden, intermediate},
  };
}

Family llama(std::string architecture, int64_t default_window) {
  return {.architectures = {std::move(architecture)},
          .embed = "model.embed_tokens.weight",
          .block_prefix = "model.layers.",
          .attention_norm = "input_layernorm.weight",
          .mlp_norm = "post_attention_layernorm.weight",
          .final_norm = "model.norm.weight",
          .head = "lm_head.weight",
          .norm = NormKind::kRms,
          .activation = Activation::kSilu,
          .rope = RopeKind::kRotateHalf,
          .default_window = default_window,
          .linears = llama_linears()};
}

std::span<const Family> families() {
  static const std::vector<Family> table = {
      llama("LlamaForCausalLM", 0),
      // LLaMA's block; MistralConfig's own default for sliding_window is 4096.
      llama("MistralForCausalLM", 4096),
  };
  return table;
}

const Family& family_for(const ModelConfig& config, const std::string& where) {
  std::string known;
  for (const Family& family : families()) {
    for (const std::string& architecture : family.architectures) {
      if (architecture == config.architecture) return family;
      known += (known.empty() ? "" : ", ") + architecture;
    }
  }
  throw bad_input(
      where + ": architecture: expected one of " + known + ", got " + config.architecture,
      "this model family is not supported yet");
}

const char* activation_name(Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return "silu";
  }
  return "";
}

// partial_rotary_factor: at the top of config.json or inside rope_parameters.
bool rotates_part(const nlohmann::json& raw) {
  const auto differs = [](const nlohmann::json& object) {
    const auto factor = object.find("partial_rotary_factor");
    return factor != object.end() && !factor->is_null() && *factor != 1;
  };
  const auto rope = raw.find("rope_parameters");
  return differs(raw) || (rope != raw.end() && rope->is_object() && differs(*rope));
}

// What would be computed wrongly if it were accepted.
void refuse_unsupported(const Family& family, const ModelConfig& config, const std::string& where) {
  const auto refuse = [&](const std::string& key, const std::string& expected,
                          const std::string& got) {
    throw bad_input(where + ": " + key + ": expected " + expected + ", got " + got,
                    "this variant of " + config.architecture + " is not supported yet");
  };
  if (!config.rope_scaling_type.empty()) {
    refuse("rope scaling", "none", config.rope_scaling_type);
  }
  if (rotates_part(config.raw)) refuse("partial_rotary_factor", "1", "another value");
  if (config.attention_bias) refuse("attention_bias", "false", "true");
  if (config.mlp_bias) refuse("mlp_bias", "false", "true");
  const std::string activation = activation_name(family.activation);
  if (config.hidden_act != activation) refuse("hidden_act", activation, config.hidden_act);
  if (config.head_dim % 2 != 0) {
    refuse("head_dim", "an even number", std::to_string(config.head_dim));
  }
}

}  // namespace

std::string ModelSpec::block_prefix(int64_t block) const {
  return family->block_prefix + std::to_string(block) + ".";
}

std::string ModelSpec::module(int64_t block, const LinearSpec& linear) const {
  return block_prefix(block) + linear.suffix;
}

const LinearSpec& ModelSpec::linear(LinearRole role) const {
  const auto found = std::find_if(family->linears.begin(), family->linears.end(),
                                  [&](const LinearSpec& linear) { return linear.role == role; });
  if (found == family->linears.end()) {
    throw Error(ErrorCode::kFailure, "family table: a role without a linear");
  }
  return *found;
}

std::vector<std::string> ModelSpec::groups() const {
  std::vector<std::string> result;
  for (const LinearSpec& linear : family->linears) {
    if (std::find(result.begin(), result.end(), linear.group) == result.end()) {
      result.push_back(linear.group);
    }
  }
  return result;
}

ModelSpec model_spec(const ModelConfig& config, const std::string& where) {
  const Family& family = family_for(config, where);
  refuse_unsupported(family, config, where);
  return {.family = &family, .config = config};
}

void check_model(const Checkpoint& checkpoint, const ModelSpec& spec, const PackedModules* packed) {
  const Family& family = *spec.family;
  const ModelConfig& config = spec.config;
  const auto check = [&](const std::string& name, const std::vector<int64_t>& shape) {
    checkpoint.check_tensor(name, shape);
  };
  check(family.embed, {config.vocab_size, config.hidden_size});
  for (int64_t block = 0; block < spec.blocks(); ++block) {
    const std::string prefix = spec.block_prefix(block);
    check(prefix + family.attention_norm, {config.hidden_size});
    check(prefix + family.mlp_norm, {config.hidden_size});
    for (const LinearSpec& linear : family.linears) {
      const std::string module = spec.module(block, linear);
      const std::vector<int64_t> shape = {linear.out_width(config), linear.in_width(config)};
      if (checkpoint.has(module + ".bias")) {
        throw bad_input(checkpoint.directory().string() + ": " + module +
                        ".bias: linears with a bias are not supported");
      }
      if (packed == nullptr || !packed->has(module)) {
        check(module + ".weight", shape);
        continue;
      }
      const LinearShape& found = packed->shape(module);
      const std::vector<int64_t> got = {found.rows, found.cols};
      if (got != shape) {
        throw bad_input(checkpoint.directory().string() + ": " + module + ": expected " +
                        shape_text(shape) + ", got " + shape_text(got));
      }
    }
  }
  check(family.final_norm, {config.hidden_size});
  if (!config.tie_word_embeddings) {
    check(family.head, {config.vocab_size, config.hidden_size});
  }
}

void check_length(const ModelSpec& spec, int64_t length) {
  int64_t window = spec.family->default_window;
  const auto found = spec.config.raw.find("sliding_window");
  if (found != spec.config.raw.end()) {
    window = found->is_number_integer() ? found->get<int64_t>() : 0;  // null: no window
  }
  if (window > 0 && length > window) {
    throw bad_input("config.json: sliding_window: expected at least the sequence length " +
                        std::to_string(length) + ", got " + std::to_string(window),
                    "use shorter sequences: --seqlen " + std::to_string(window));
  }
}

}  // namespace billm
