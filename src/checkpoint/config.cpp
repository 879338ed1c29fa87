// config.json: see include/billm/checkpoint/config.h.
#include "billm/checkpoint/config.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/base/json_text.h"
#include "billm/checkpoint/json.h"

namespace billm {
namespace {

using nlohmann::json;

// Far above every model there is, and small enough that products of two of them fit into int64.
constexpr int64_t kMaxSize = int64_t{1} << 24;       // a width or a vocabulary
constexpr int64_t kMaxCount = int64_t{1} << 16;      // heads, layers
constexpr int64_t kMaxPositions = int64_t{1} << 40;  // some models state "no limit" by a huge one
constexpr size_t kMaxFile = size_t{16} << 20;

// Which layers of a model see a window of the tokens before only.
enum class Sliding : uint8_t { kNone, kAllLayers, kByFlag };  // kByFlag: use_sliding_window

// What transformers 5.23 takes where config.json is silent, by model_type (its configuration_*.py),
// and the names of keys that differ.
struct Defaults {
  const char* model_type;
  int64_t kv_heads;  // 0: as many as heads
  int64_t head_dim;  // 0: hidden_size / heads
  int64_t positions;
  bool tied;
  const char* ffn_key;
  const char* activation_key;
  const char* activation;
  Sliding sliding;
};

constexpr Defaults kDefaults[] = {
    {"llama", 0, 0, 2048, false, "intermediate_size", "hidden_act", "silu", Sliding::kNone},
    {"mistral", 8, 0, 131072, false, "intermediate_size", "hidden_act", "silu",
     Sliding::kAllLayers},
    {"qwen2", 32, 0, 32768, false, "intermediate_size", "hidden_act", "silu", Sliding::kByFlag},
    {"qwen3", 32, 128, 32768, false, "intermediate_size", "hidden_act", "silu", Sliding::kByFlag},
    {"opt", 0, 0, 2048, true, "ffn_dim", "activation_function", "relu", Sliding::kNone},
};
constexpr int64_t kSlidingWindow = 4096;  // of mistral, qwen2 and qwen3
constexpr int64_t kMaxWindowLayers = 28;  // of qwen2 and qwen3

// Those of an unknown type are not used: no family computes it.
const Defaults& defaults_of(const std::string& model_type) {
  const auto found =
      std::find_if(std::begin(kDefaults), std::end(kDefaults),
                   [&](const Defaults& row) { return row.model_type == model_type; });
  return found == std::end(kDefaults) ? kDefaults[0] : *found;
}

// Typed access to the members of one object; null counts as absent, as in HuggingFace's readers.
class Reader {
 public:
  Reader(const json& object, std::string where) : object_(object), where_(std::move(where)) {}

  const json* find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  Error wrong(const std::string& key, const std::string& expected, const json* value) const {
    std::string got = "nothing";
    if (value != nullptr) {
      got = value->is_structured()
                ? std::string("an ") + value->type_name()
                : printable(value->dump(-1, ' ', false, json::error_handler_t::replace));
    }
    return bad_input(where_ + ": " + key + ": expected " + expected + ", got " + got);
  }

  // An integer in [least, limit].
  std::optional<int64_t> size(const char* key, int64_t limit, uint64_t least = 1) const {
    const json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number_unsigned() || value->get<uint64_t>() < least ||
        value->get<uint64_t>() > static_cast<uint64_t>(limit)) {
      throw wrong(key, "an integer from " + std::to_string(least) + " to " + std::to_string(limit),
                  value);
    }
    return value->get<int64_t>();
  }

  int64_t required_size(const char* key, int64_t limit) const {
    const auto value = size(key, limit);
    if (!value) throw wrong(key, "an integer", nullptr);
    return *value;
  }

  // Whether the key is there, be it null.
  bool states(const char* key) const { return object_.contains(key); }

  void required_number(const char* key, double limit, double* result) const {
    if (find(key) == nullptr) throw wrong(key, "a number", nullptr);
    number(key, limit, result);
  }

  void number(const char* key, double limit, double* result) const {
    const json* value = find(key);
    if (value == nullptr) return;
    const double number = value->is_number() ? value->get<double>() : NAN;
    // Written so that NaN fails.
    if (!(number > 0 && number <= limit)) {
      throw wrong(key, "a number above 0 and at most " + dump_json(json(limit)), value);
    }
    *result = number;
  }

  void flag(const char* key, bool* result) const {
    const json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_boolean()) throw wrong(key, "true or false", value);
    *result = value->get<bool>();
  }

  std::string text(const char* key) const {
    const json* value = find(key);
    if (value == nullptr) return "";
    if (!value->is_string()) throw wrong(key, "a string", value);
    return value->get<std::string>();
  }

  std::string required_text(const char* key) const {
    const std::string value = text(key);
    if (value.empty()) throw wrong(key, "a string that is not empty", find(key));
    return value;
  }

  json object(const char* key) const {
    const json* value = find(key);
    if (value == nullptr) return nullptr;
    if (!value->is_object()) throw wrong(key, "an object", value);
    return *value;
  }

  // A token id or a list of them; negative means "none".
  std::vector<int64_t> ids(const char* key) const {
    std::vector<int64_t> result;
    const json* value = find(key);
    if (value == nullptr) return result;
    const json list = value->is_array() ? *value : json::array({*value});
    for (const json& id : list) {
      if (!id.is_number_integer() ||
          (id.is_number_unsigned() && id.get<uint64_t>() >= static_cast<uint64_t>(kMaxSize))) {
        throw wrong(key, "a token id or a list of token ids", value);
      }
      if (id.is_number_unsigned()) result.push_back(id.get<int64_t>());
    }
    return result;
  }

  const std::string& where() const { return where_; }

 private:
  const json& object_;
  std::string where_;
};

std::string architecture(const Reader& reader) {
  const json* list = reader.find("architectures");
  if (list == nullptr || !list->is_array() || list->empty() || !list->front().is_string() ||
      list->front().get_ref<const std::string&>().empty()) {
    throw reader.wrong("architectures", "a list that starts with a class name", list);
  }
  return list->front().get<std::string>();
}

// Older files: "rope_theta", and "rope_scaling" with "rope_type" or "type". Newer files: one
// "rope_parameters" with all of it, or with one such object per kind of layer. Of both,
// rope_scaling counts.
void read_rope(const Reader& reader, ModelConfig* config) {
  constexpr double kMaxTheta = 1e12, kMaxFactor = 1e6;
  reader.number("rope_theta", kMaxTheta, &config->rope_theta);
  json rope = reader.object("rope_scaling");
  const bool older = rope.is_object() && !rope.empty();
  if (!older) rope = reader.object("rope_parameters");
  if (rope.is_null()) return;
  const Reader inside(rope, reader.where() + (older ? ": rope_scaling" : ": rope_parameters"));
  inside.number("rope_theta", kMaxTheta, &config->rope_theta);
  std::string type = inside.text("rope_type");
  if (type.empty()) type = inside.text("type");
  if (type.empty()) {
    bool nested = false;
    for (const json& value : rope) nested = nested || value.is_object();
    if (nested) type = "per_layer";
    // A scaling without a kind would be silently ignored: refuse it instead.
    if (!nested && older) throw inside.wrong("rope_type", "a string", nullptr);
  }
  if (type.empty() || type == "default") return;
  RopeScaling& scaling = config->rope_scaling;
  scaling.type = type;
  if (type != "linear" && type != "dynamic" && type != "llama3") return;
  inside.required_number("factor", kMaxFactor, &scaling.factor);
  if (type != "llama3") return;
  inside.required_number("low_freq_factor", kMaxFactor, &scaling.low_frequency);
  inside.required_number("high_freq_factor", kMaxFactor, &scaling.high_frequency);
  if (!(scaling.high_frequency > scaling.low_frequency)) {
    throw inside.wrong("high_freq_factor", "more than low_freq_factor",
                       inside.find("high_freq_factor"));
  }
  const char* key = "original_max_position_embeddings";  // at the top it counts more
  scaling.original_positions =
      reader.size(key, kMaxPositions)
          .value_or(inside.size(key, kMaxPositions).value_or(config->max_position_embeddings));
}

// The window of every layer; 0: none.
std::vector<int64_t> read_windows(const Reader& reader, Sliding sliding, int64_t layers) {
  std::vector<int64_t> windows(static_cast<size_t>(layers), 0);
  bool slides = sliding == Sliding::kAllLayers;
  if (sliding == Sliding::kByFlag) reader.flag("use_sliding_window", &slides);
  std::optional<int64_t> window;  // none where the file says null
  if (slides) window = reader.size("sliding_window", kMaxPositions);
  if (slides && !reader.states("sliding_window")) window = kSlidingWindow;
  const json* types = sliding == Sliding::kByFlag ? reader.find("layer_types") : nullptr;
  if (types == nullptr) {
    int64_t first = 0;
    if (sliding == Sliding::kByFlag && window) {
      first = reader.size("max_window_layers", kMaxCount, 0).value_or(kMaxWindowLayers);
    }
    for (int64_t i = first; i < layers; ++i) windows[static_cast<size_t>(i)] = window.value_or(0);
    return windows;
  }
  if (!types->is_array() || types->size() != windows.size()) {
    throw reader.wrong("layer_types", "a list of " + std::to_string(layers) + " names", types);
  }
  for (size_t i = 0; i < windows.size(); ++i) {
    const json& type = (*types)[i];
    if (type == "full_attention") continue;
    if (type != "sliding_attention") {
      throw reader.wrong("layer_types", "full_attention or sliding_attention", &type);
    }
    if (!window) {
      throw reader.wrong("sliding_window", "a number, since layer_types has sliding_attention",
                         nullptr);
    }
    windows[i] = *window;
  }
  return windows;
}

void read_opt(const Reader& reader, ModelConfig* config) {
  config->embed_width = reader.size("word_embed_proj_dim", kMaxSize).value_or(config->hidden_size);
  reader.flag("do_layer_norm_before", &config->norm_before);
  reader.flag("_remove_final_layer_norm", &config->remove_final_norm);
  reader.flag("enable_bias", &config->enable_bias);
  reader.flag("layer_norm_elementwise_affine", &config->norm_affine);
}

}  // namespace

ModelConfig parse_config(std::string_view text, const std::string& file) {
  if (text.size() > kMaxFile) {
    throw bad_input(file + ": size: expected at most " + std::to_string(kMaxFile) + " bytes, got " +
                    std::to_string(text.size()));
  }
  ModelConfig config;
  config.raw = parse_json_object(text, file);
  const Reader reader(config.raw, file);
  config.architecture = architecture(reader);
  config.model_type = reader.required_text("model_type");
  config.hidden_size = reader.required_size("hidden_size", kMaxSize);
  config.num_hidden_layers = reader.required_size("num_hidden_layers", kMaxCount);
  config.num_attention_heads = reader.required_size("num_attention_heads", kMaxCount);
  config.vocab_size = reader.required_size("vocab_size", kMaxSize);
  const Defaults& defaults = defaults_of(config.model_type);
  config.intermediate_size = reader.required_size(defaults.ffn_key, kMaxSize);

  const int64_t heads = config.num_attention_heads;
  const bool silent = defaults.kv_heads > 0 && !reader.states("num_key_value_heads");
  config.num_key_value_heads =
      reader.size("num_key_value_heads", kMaxCount).value_or(silent ? defaults.kv_heads : heads);
  if (heads % config.num_key_value_heads != 0) {
    throw reader.wrong("num_key_value_heads",
                       "a divisor of num_attention_heads = " + std::to_string(heads),
                       reader.find("num_key_value_heads"));
  }
  auto head_dim = reader.size("head_dim", kMaxSize);
  if (!head_dim && defaults.head_dim > 0) head_dim = defaults.head_dim;
  if (!head_dim && config.hidden_size % heads != 0) {
    throw reader.wrong("num_attention_heads",
                       "a divisor of hidden_size = " + std::to_string(config.hidden_size),
                       reader.find("num_attention_heads"));
  }
  config.head_dim = head_dim.value_or(config.hidden_size / heads);
  config.max_position_embeddings =
      reader.size("max_position_embeddings", kMaxPositions).value_or(defaults.positions);
  reader.number("rms_norm_eps", 1.0, &config.rms_norm_eps);
  read_rope(reader, &config);
  config.windows = read_windows(reader, defaults.sliding, config.num_hidden_layers);
  config.tie_word_embeddings = defaults.tied;
  reader.flag("tie_word_embeddings", &config.tie_word_embeddings);
  reader.flag("attention_bias", &config.attention_bias);
  reader.flag("mlp_bias", &config.mlp_bias);
  config.hidden_act = defaults.activation;
  if (reader.find(defaults.activation_key) != nullptr) {
    config.hidden_act = reader.required_text(defaults.activation_key);
  }
  config.embed_width = config.hidden_size;
  if (config.model_type == "opt") read_opt(reader, &config);
  const std::vector<int64_t> bos = reader.ids("bos_token_id");
  if (!bos.empty()) config.bos_token_id = bos.front();
  config.eos_token_ids = reader.ids("eos_token_id");
  config.torch_dtype = reader.text("dtype");
  if (config.torch_dtype.empty()) config.torch_dtype = reader.text("torch_dtype");
  if (config.torch_dtype.starts_with("torch.")) config.torch_dtype.erase(0, 6);
  config.quantization_config = reader.object("quantization_config");
  return config;
}

ModelConfig read_config(const std::filesystem::path& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  return parse_config({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
}

}  // namespace billm
