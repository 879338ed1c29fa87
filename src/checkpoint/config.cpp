// config.json: see include/billm/checkpoint/config.h.
#include "billm/checkpoint/config.h"

#include <cmath>
#include <utility>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/checkpoint/json.h"

namespace billm {
namespace {

using nlohmann::json;

// Far above every model there is, and small enough that products of two of them fit into int64.
constexpr int64_t kMaxSize = int64_t{1} << 24;       // a width or a vocabulary
constexpr int64_t kMaxCount = int64_t{1} << 16;      // heads, layers
constexpr int64_t kMaxPositions = int64_t{1} << 40;  // some models state "no limit" by a huge one
constexpr size_t kMaxFile = size_t{16} << 20;

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

  // An integer in [1, limit].
  std::optional<int64_t> size(const char* key, int64_t limit) const {
    const json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number_unsigned() || value->get<uint64_t>() == 0 ||
        value->get<uint64_t>() > static_cast<uint64_t>(limit)) {
      throw wrong(key, "an integer from 1 to " + std::to_string(limit), value);
    }
    return value->get<int64_t>();
  }

  int64_t required_size(const char* key, int64_t limit) const {
    const auto value = size(key, limit);
    if (!value) throw wrong(key, "an integer", nullptr);
    return *value;
  }

  void number(const char* key, double limit, double* result) const {
    const json* value = find(key);
    if (value == nullptr) return;
    const double number = value->is_number() ? value->get<double>() : NAN;
    // Written so that NaN fails.
    if (!(number > 0 && number <= limit)) {
      throw wrong(key, "a number above 0 and at most " + json(limit).dump(), value);
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
// "rope_parameters" with all of it, or with one such object per kind of layer.
void read_rope(const Reader& reader, ModelConfig* config) {
  constexpr double kMaxTheta = 1e12;
  reader.number("rope_theta", kMaxTheta, &config->rope_theta);
  const bool newer = reader.find("rope_parameters") != nullptr;
  const char* key = newer ? "rope_parameters" : "rope_scaling";
  json rope = reader.object(key);
  if (rope.is_null()) return;
  const Reader inside(rope, reader.where() + ": " + key);
  inside.number("rope_theta", kMaxTheta, &config->rope_theta);
  std::string type = inside.text("rope_type");
  if (type.empty()) type = inside.text("type");
  if (type.empty()) {
    bool nested = false;
    for (const json& value : rope) nested = nested || value.is_object();
    if (nested) type = "per_layer";
    // A scaling without a kind would be silently ignored: refuse it instead.
    if (!nested && !newer && !rope.empty()) throw inside.wrong("rope_type", "a string", nullptr);
  }
  if (type.empty() || type == "default") return;
  config->rope_scaling_type = type;
  config->rope_scaling = std::move(rope);
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
  const char* ffn_key =
      reader.find("intermediate_size") == nullptr && reader.find("ffn_dim") != nullptr
          ? "ffn_dim"
          : "intermediate_size";
  config.intermediate_size = reader.required_size(ffn_key, kMaxSize);

  const int64_t heads = config.num_attention_heads;
  config.num_key_value_heads = reader.size("num_key_value_heads", kMaxCount).value_or(heads);
  if (heads % config.num_key_value_heads != 0) {
    throw reader.wrong("num_key_value_heads",
                       "a divisor of num_attention_heads = " + std::to_string(heads),
                       reader.find("num_key_value_heads"));
  }
  const auto head_dim = reader.size("head_dim", kMaxSize);
  if (!head_dim && config.hidden_size % heads != 0) {
    throw reader.wrong("num_attention_heads",
                       "a divisor of hidden_size = " + std::to_string(config.hidden_size),
                       reader.find("num_attention_heads"));
  }
  config.head_dim = head_dim.value_or(config.hidden_size / heads);
  config.max_position_embeddings = reader.size("max_position_embeddings", kMaxPositions)
                                       .value_or(config.max_position_embeddings);
  reader.number("rms_norm_eps", 1.0, &config.rms_norm_eps);
  read_rope(reader, &config);
  reader.flag("tie_word_embeddings", &config.tie_word_embeddings);
  reader.flag("attention_bias", &config.attention_bias);
  reader.flag("mlp_bias", &config.mlp_bias);
  for (const char* key : {"activation_function", "hidden_act"}) {
    if (reader.find(key) != nullptr) config.hidden_act = reader.required_text(key);
  }
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
