// Random LLaMA checkpoints: see tests/support/tiny_checkpoint.h.
#include "support/tiny_checkpoint.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <random>

#include "billm/base/json_text.h"
#include "billm/checkpoint/safetensors.h"

namespace billm::test {
namespace {

// Roughly normal with deviation `scale`, around `mean`: the sum of four uniform numbers. The same
// on every machine, unlike std::normal_distribution.
std::vector<uint16_t> random_halves(int64_t count, uint32_t seed, float mean, float scale) {
  std::mt19937 random(seed);
  std::vector<uint16_t> halves(static_cast<size_t>(count));
  for (uint16_t& half : halves) {
    float sum = 0;
    for (int i = 0; i < 4; ++i) sum += static_cast<float>(random() >> 8) * 0x1p-24f - 0.5f;
    half = float_to_half(mean + scale * sum * 1.7320508f);
  }
  return halves;
}

std::map<std::string, std::vector<int64_t>> tensor_shapes(const TinyLlama& o) {
  std::map<std::string, std::vector<int64_t>> shapes = {
      {"model.embed_tokens.weight", {o.vocab, o.hidden}}, {"model.norm.weight", {o.hidden}}};
  for (const auto& [name, length] : o.vectors) shapes[name] = {length};
  if (!o.tied) shapes["lm_head.weight"] = {o.vocab, o.hidden};
  const int64_t query = o.heads * o.head_dim, kv = o.kv_heads * o.head_dim;
  for (int64_t b = 0; b < o.blocks; ++b) {
    const std::string prefix = "model.layers." + std::to_string(b) + ".";
    shapes[prefix + "input_layernorm.weight"] = {o.hidden};
    shapes[prefix + "post_attention_layernorm.weight"] = {o.hidden};
    shapes[prefix + "self_attn.q_proj.weight"] = {query, o.hidden};
    shapes[prefix + "self_attn.k_proj.weight"] = {kv, o.hidden};
    shapes[prefix + "self_attn.v_proj.weight"] = {kv, o.hidden};
    shapes[prefix + "self_attn.o_proj.weight"] = {o.hidden, query};
    shapes[prefix + "mlp.gate_proj.weight"] = {o.intermediate, o.hidden};
    shapes[prefix + "mlp.up_proj.weight"] = {o.intermediate, o.hidden};
    shapes[prefix + "mlp.down_proj.weight"] = {o.hidden, o.intermediate};
  }
  return shapes;
}

std::vector<std::byte> to_bytes(const std::vector<uint16_t>& halves) {
  std::vector<std::byte> bytes(halves.size() * 2);
  std::memcpy(bytes.data(), halves.data(), bytes.size());
  return bytes;
}

}  // namespace

void write_tiny_llama(const std::filesystem::path& directory, const TinyLlama& options) {
  std::filesystem::create_directories(directory);
  nlohmann::json config = {{"architectures", {"LlamaForCausalLM"}},
                           {"model_type", "llama"},
                           {"hidden_size", options.hidden},
                           {"intermediate_size", options.intermediate},
                           {"num_hidden_layers", options.blocks},
                           {"num_attention_heads", options.heads},
                           {"num_key_value_heads", options.kv_heads},
                           {"head_dim", options.head_dim},
                           {"vocab_size", options.vocab},
                           {"rms_norm_eps", 1e-5},
                           {"rope_theta", 10000.0},
                           {"hidden_act", "silu"},
                           {"tie_word_embeddings", options.tied},
                           {"torch_dtype", "float16"}};
  config.merge_patch(options.config_changes);
  std::ofstream(directory / "config.json") << dump_json(config, 2) << "\n";

  std::vector<TensorToWrite> tensors;
  uint32_t seed = options.seed * 1000003u;
  for (auto& [name, shape] : tensor_shapes(options)) {
    const bool norm = shape.size() == 1 && name.ends_with(".weight");
    const float scale =
        shape.size() == 1 ? 0.1f : 2.0f / std::sqrt(static_cast<float>(shape.back()));
    int64_t count = 1;
    for (const int64_t extent : shape) count *= extent;
    const auto make = [count, seed, norm, scale] {
      return random_halves(count, seed, norm ? 1.0f : 0.0f, scale);
    };
    ++seed;
    if (!options.change) {
      tensors.push_back({name, DType::F16, shape, {}, [make] { return to_bytes(make()); }});
      continue;
    }
    std::vector<uint16_t> halves = make();
    std::vector<int64_t> changed = shape;
    if (!options.change(name, changed, halves)) continue;
    auto bytes = std::make_shared<std::vector<std::byte>>(to_bytes(halves));
    tensors.push_back({name, DType::F16, changed, {}, [bytes] { return *bytes; }});
  }
  write_safetensors(directory / "model.safetensors", std::move(tensors), {{"format", "pt"}});
}

}  // namespace billm::test
