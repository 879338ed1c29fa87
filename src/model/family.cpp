// The table of model families: see include/billm/model/family.h. Sources: transformers 5.23,
// modeling_llama.py, modeling_mistral.py, modeling_qwen2.py, modeling_qwen3.py, modeling_opt.py.
#include "billm/model/family.h"

#include <algorithm>

#include "billm/base/error.h"
#include "billm/base/log.h"
#include "rope_scaling.h"

namespace billm {
namespace {

int64_t hidden(const ModelConfig& config) { return config.hidden_size; }
int64_t intermediate(const ModelConfig& config) { return config.intermediate_size; }
int64_t query_width(const ModelConfig& config) {
  return config.num_attention_heads * config.head_dim;
}
int64_t kv_width(const ModelConfig& config) { return config.num_key_value_heads * config.head_dim; }
int64_t head_width(const ModelConfig& config) { return config.head_dim; }

using Flag = bool (*)(const ModelConfig&);
bool never(const ModelConfig&) { return false; }
bool always(const ModelConfig&) { return true; }
bool attention_bias(const ModelConfig& config) { return config.attention_bias; }
bool mlp_bias(const ModelConfig& config) { return config.mlp_bias; }
bool enable_bias(const ModelConfig& config) { return config.enable_bias; }

// Which linears of LLaMA's block have a bias.
struct Biases {
  Flag query_key_value, attention_out, mlp;
};

std::vector<LinearSpec> llama_linears(const Biases& bias) {
  return {
      {LinearRole::kQuery, "self_attn.q_proj", "attention_in", query_width, hidden,
       bias.query_key_value},
      {LinearRole::kKey, "self_attn.k_proj", "attention_in", kv_width, hidden,
       bias.query_key_value},
      {LinearRole::kValue, "self_attn.v_proj", "attention_in", kv_width, hidden,
       bias.query_key_value},
      {LinearRole::kAttentionOut, "self_attn.o_proj", "attention_out", hidden, query_width,
       bias.attention_out},
      {LinearRole::kGate, "mlp.gate_proj", "mlp_in", intermediate, hidden, bias.mlp},
      {LinearRole::kUp, "mlp.up_proj", "mlp_in", intermediate, hidden, bias.mlp},
      {LinearRole::kDown, "mlp.down_proj", "mlp_middle", hidden, intermediate, bias.mlp},
  };
}

// LLaMA and what differs from it in biases and norms of heads alone (windows: config.windows).
Family llama(const char* model_type, std::vector<std::string> architectures, const Biases& bias,
             bool head_norms) {
  std::vector<NormSpec> norms = {
      {NormRole::kAttention, "input_layernorm", hidden},
      {NormRole::kMlp, "post_attention_layernorm", hidden},
  };
  if (head_norms) {
    norms.push_back({NormRole::kQuery, "self_attn.q_norm", head_width});
    norms.push_back({NormRole::kKey, "self_attn.k_norm", head_width});
  }
  return {.model_type = model_type,
          .architectures = std::move(architectures),
          .embed = "embed_tokens",
          .positions = "",
          .project_in = "",
          .project_out = "",
          .blocks = "layers",
          .final_norm = "norm",
          .head = "lm_head",
          .norm = NormKind::kRms,
          .position = PositionKind::kRotary,
          .norms = std::move(norms),
          .linears = llama_linears(bias)};
}

Family opt() {
  return {
      .model_type = "opt",
      .architectures = {"OPTForCausalLM", "OPTModel"},
      .embed = "decoder.embed_tokens",
      .positions = "decoder.embed_positions",
      .project_in = "decoder.project_in",
      .project_out = "decoder.project_out",
      .blocks = "decoder.layers",
      .final_norm = "decoder.final_layer_norm",
      .head = "lm_head",
      .norm = NormKind::kLayer,
      .position = PositionKind::kLearned,
      .norms = {{NormRole::kAttention, "self_attn_layer_norm", hidden},
                {NormRole::kMlp, "final_layer_norm", hidden}},
      .linears = {
          {LinearRole::kQuery, "self_attn.q_proj", "attention_in", query_width, hidden,
           enable_bias},
          {LinearRole::kKey, "self_attn.k_proj", "attention_in", kv_width, hidden, enable_bias},
          {LinearRole::kValue, "self_attn.v_proj", "attention_in", kv_width, hidden, enable_bias},
          {LinearRole::kAttentionOut, "self_attn.out_proj", "attention_out", hidden, query_width,
           enable_bias},
          {LinearRole::kUp, "fc1", "mlp_in", intermediate, hidden, enable_bias},
          {LinearRole::kDown, "fc2", "mlp_middle", hidden, intermediate, enable_bias}}};
}

const Family& family_for(const ModelConfig& config, const std::string& where) {
  std::string known;
  for (const Family& family : families()) {
    for (const std::string& architecture : family.architectures) {
      known += (known.empty() ? "" : ", ") + architecture;
      if (architecture != config.architecture) continue;
      if (config.model_type == family.model_type) return family;
      throw bad_input(where + ": model_type: expected " + family.model_type + " of " +
                      architecture + ", got " + config.model_type);
    }
  }
  throw bad_input(
      where + ": architecture: expected one of " + known + ", got " + config.architecture,
      "this model family is not supported yet");
}

struct ActivationName {
  const char* name;
  Activation activation;
};
constexpr ActivationName kActivations[] = {{"silu", Activation::kSilu},
                                           {"swish", Activation::kSilu},
                                           {"relu", Activation::kRelu},
                                           {"gelu", Activation::kGelu}};

// partial_rotary_factor: at the top of config.json or inside rope_parameters.
bool rotates_part(const nlohmann::json& raw) {
  const auto differs = [](const nlohmann::json& object) {
    const auto factor = object.find("partial_rotary_factor");
    return factor != object.end() && !factor->is_null() && *factor != 1;
  };
  const auto rope = raw.find("rope_parameters");
  return differs(raw) || (rope != raw.end() && rope->is_object() && differs(*rope));
}

class Refusal {
 public:
  Refusal(const ModelConfig& config, const std::string& where) : config_(config), where_(where) {}
  [[noreturn]] void operator()(const std::string& key, const std::string& expected,
                               const std::string& got) const {
    throw bad_input(where_ + ": " + key + ": expected " + expected + ", got " + got,
                    "this variant of " + config_.architecture + " is not supported yet");
  }

 private:
  const ModelConfig& config_;
  const std::string& where_;
};

Activation find_activation(const ModelConfig& config, const Refusal& refuse) {
  std::string known;
  for (const ActivationName& row : kActivations) {
    if (config.hidden_act == row.name) return row.activation;
    known += std::string(known.empty() ? "" : ", ") + row.name;
  }
  refuse("activation function", "one of " + known, config.hidden_act);
}

// What would be computed wrongly if it were accepted.
void check_rotary(const ModelConfig& config, const Refusal& refuse) {
  if (find_rope_scaling(config.rope_scaling.type) == nullptr) {
    refuse("rope scaling", "one of " + rope_scaling_names(), config.rope_scaling.type);
  }
  if (rotates_part(config.raw)) refuse("partial_rotary_factor", "1", "another value");
  const bool dynamic = config.rope_scaling.type == "dynamic";  // divides by head_dim - 2
  if (config.head_dim % 2 != 0 || (dynamic && config.head_dim == 2)) {
    refuse("head_dim", dynamic ? "an even number above 2" : "an even number",
           std::to_string(config.head_dim));
  }
}

}  // namespace

std::span<const Family> families() {
  static const std::vector<Family> table = {
      // "LLaMA" is how the first conversions of LLaMA-1 spell it.
      llama("llama", {"LlamaForCausalLM", "LLaMAForCausalLM", "LlamaModel"},
            {attention_bias, attention_bias, mlp_bias}, false),
      llama("mistral", {"MistralForCausalLM", "MistralModel"}, {never, never, never}, false),
      llama("qwen2", {"Qwen2ForCausalLM", "Qwen2Model"}, {always, never, never}, false),
      llama("qwen3", {"Qwen3ForCausalLM", "Qwen3Model"}, {attention_bias, attention_bias, never},
            true),
      opt(),
  };
  return table;
}

std::string ModelSpec::block_prefix(int64_t block) const {
  return base + family->blocks + "." + std::to_string(block) + ".";
}

std::string ModelSpec::module(int64_t block, const LinearSpec& linear) const {
  return block_prefix(block) + linear.suffix;
}

std::vector<std::string> ModelSpec::modules() const {
  std::vector<std::string> modules;
  for (int64_t block = 0; block < blocks(); ++block) {
    for (const LinearSpec& linear : family->linears) modules.push_back(module(block, linear));
  }
  return modules;
}

const LinearSpec* ModelSpec::find(LinearRole role) const {
  for (const LinearSpec& linear : family->linears) {
    if (linear.role == role) return &linear;
  }
  return nullptr;
}

const NormSpec* ModelSpec::find(NormRole role) const {
  for (const NormSpec& norm : family->norms) {
    if (norm.role == role) return &norm;
  }
  return nullptr;
}

const LinearSpec& ModelSpec::linear(LinearRole role) const {
  const LinearSpec* found = find(role);
  if (found == nullptr) throw Error(ErrorCode::kFailure, "family table: a role without a linear");
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

GroupShape ModelSpec::group_shape(const std::string& group) const {
  GroupShape shape;
  for (const LinearSpec& linear : family->linears) {
    if (linear.group != group) continue;
    shape.cols = linear.in_width(config);
    shape.rows += linear.out_width(config);
    if (linear.role == LinearRole::kAttentionOut || linear.role == LinearRole::kDown) {
      shape.stream_rows = config.hidden_size;
    }
  }
  return shape;
}

bool ModelSpec::norms_have_weights() const {
  return family->norm == NormKind::kRms || config.norm_affine;
}

bool ModelSpec::norms_have_biases() const {
  return family->norm == NormKind::kLayer && config.norm_affine;
}

bool ModelSpec::has_final_norm() const { return config.norm_before && !config.remove_final_norm; }

ModelSpec model_spec(const ModelConfig& config, const std::string& where) {
  const Refusal refuse(config, where);
  ModelSpec spec;
  spec.family = &family_for(config, where);
  spec.config = config;
  spec.activation = find_activation(config, refuse);
  if (spec.family->position == PositionKind::kRotary) check_rotary(config, refuse);
  spec.embed = spec.base + spec.family->embed + ".weight";
  spec.head = config.tie_word_embeddings ? spec.embed : spec.family->head + std::string(".weight");
  return spec;
}

ModelSpec model_spec(const Checkpoint& checkpoint) {
  const ModelConfig& config = checkpoint.config();
  ModelSpec spec = model_spec(config, (checkpoint.directory() / "config.json").string());
  const std::vector<std::string> names = checkpoint.names();
  const auto any_below = [&](const std::string& prefix) {
    const auto found = std::lower_bound(names.begin(), names.end(), prefix);
    return found != names.end() && found->starts_with(prefix);
  };
  const std::string blocks = std::string(spec.family->blocks) + ".";
  if (!any_below(spec.base + blocks) && any_below(blocks)) spec.base = "";
  spec.embed = spec.base + spec.family->embed + ".weight";
  const std::string head = spec.family->head + std::string(".weight");
  // As it is, or as integer rows.
  const auto stored = [&](const std::string& weight) {
    return checkpoint.has(weight) || checkpoint.has(weight.substr(0, weight.rfind('.')) + ".codes");
  };
  if (!config.tie_word_embeddings || stored(head)) {
    spec.head = head;
    if (config.tie_word_embeddings && !stored(spec.embed)) spec.embed = head;
  } else {
    spec.head = spec.embed;
  }
  return spec;
}

int64_t quantized_weights(const ModelSpec& spec) {
  int64_t block = 0;
  for (const LinearSpec& linear : spec.family->linears) {
    block += linear.out_width(spec.config) * linear.in_width(spec.config);
  }
  return spec.blocks() * block;
}

int64_t other_weights(const ModelSpec& spec) {
  const ModelConfig& config = spec.config;
  const int64_t vectors = (spec.norms_have_weights() ? 1 : 0) + (spec.norms_have_biases() ? 1 : 0);
  int64_t block = 0;
  for (const NormSpec& norm : spec.family->norms) block += vectors * norm.width(config);
  for (const LinearSpec& linear : spec.family->linears) {
    if (linear.has_bias(config)) block += linear.out_width(config);
  }
  int64_t total = (spec.embed == spec.head ? 1 : 2) * config.vocab_size * config.embed_width;
  if (spec.has_projections()) total += 2 * config.embed_width * config.hidden_size;
  if (spec.family->position == PositionKind::kLearned) {
    total += (config.max_position_embeddings + kPositionOffset) * config.hidden_size;
  }
  if (spec.has_final_norm()) total += vectors * config.hidden_size;
  return total + spec.blocks() * block;
}

void check_length(const ModelSpec& spec, int64_t length) {
  const int64_t positions = spec.config.max_position_embeddings;
  if (length <= positions) return;
  const std::string text = "max_position_embeddings: expected at least the sequence length " +
                           std::to_string(length) + ", got " + std::to_string(positions);
  if (spec.family->position == PositionKind::kLearned) {
    throw bad_input("config.json: " + text,
                    "use shorter sequences: --seqlen " + std::to_string(positions));
  }
  // The dynamic scaling is made for this.
  if (spec.config.rope_scaling.type != "dynamic") {
    log_warning(text + ": the model may not have learned such positions");
  }
}

}  // namespace billm
