// config.json: what real files look like, defaults, and one clear line for what is wrong.
#include "billm/checkpoint/config.h"

#include "billm/base/json_text.h"
#include "testing.h"

namespace billm {
namespace {

using nlohmann::json;

json minimal() {
  return parse_json(R"({"architectures":["LlamaForCausalLM"],"model_type":"llama",
    "hidden_size":576,"intermediate_size":1536,"num_hidden_layers":30,"num_attention_heads":9,
    "vocab_size":49152})");
}

ModelConfig parse(const json& value) { return parse_config(dump_json(value), "config.json"); }

ModelConfig with(const char* key, json value) {
  json config = minimal();
  config[key] = std::move(value);
  return parse(config);
}

void expect_refused(const char* key, json value, std::string_view expected) {
  expect_bad_input([&] { with(key, value); },
                   {"config.json: ", std::string(key) + ": expected ", expected});
}

TEST(Config, DefaultsOfAMinimalFile) {
  const ModelConfig config = parse(minimal());
  EXPECT_EQ(config.architecture, "LlamaForCausalLM");
  EXPECT_EQ(config.model_type, "llama");
  EXPECT_EQ(config.hidden_size, 576);
  EXPECT_EQ(config.intermediate_size, 1536);
  EXPECT_EQ(config.num_hidden_layers, 30);
  EXPECT_EQ(config.num_attention_heads, 9);
  EXPECT_EQ(config.num_key_value_heads, 9);
  EXPECT_EQ(config.head_dim, 64);
  EXPECT_EQ(config.vocab_size, 49152);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.rope_theta, 10000.0);
  EXPECT_EQ(config.rope_scaling.type, "");
  EXPECT_EQ(config.windows, std::vector<int64_t>(30, 0));
  EXPECT_EQ(config.embed_width, 576);
  EXPECT_TRUE(config.norm_before && config.enable_bias && config.norm_affine);
  EXPECT_FALSE(config.remove_final_norm);
  EXPECT_EQ(config.max_position_embeddings, 2048);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_FALSE(config.attention_bias);
  EXPECT_FALSE(config.mlp_bias);
  EXPECT_EQ(config.hidden_act, "silu");
  EXPECT_FALSE(config.bos_token_id.has_value());
  EXPECT_TRUE(config.eos_token_ids.empty());
  EXPECT_EQ(config.torch_dtype, "");
  EXPECT_TRUE(config.quantization_config.is_null());
  EXPECT_EQ(config.raw, minimal());
}

TEST(Config, NullCountsAsAbsent) {
  for (const char* key : {"num_key_value_heads", "head_dim", "rope_scaling", "rope_theta",
                          "attention_bias", "bos_token_id", "eos_token_id", "torch_dtype",
                          "quantization_config", "hidden_act", "max_position_embeddings"}) {
    EXPECT_EQ(with(key, nullptr).head_dim, 64) << key;
  }
}

TEST(Config, StatedValues) {
  json config = minimal();
  config.update(parse_json(R"({"num_key_value_heads":3,"head_dim":128,"rms_norm_eps":1e-5,
    "rope_theta":500000,"tie_word_embeddings":true,"attention_bias":true,"mlp_bias":true,
    "hidden_act":"gelu","max_position_embeddings":8192,"bos_token_id":1,"eos_token_id":[2,3],
    "torch_dtype":"bfloat16","quantization_config":{"quant_method":"billm"}})"));
  const ModelConfig parsed = parse(config);
  EXPECT_EQ(parsed.num_key_value_heads, 3);
  EXPECT_EQ(parsed.head_dim, 128);
  EXPECT_EQ(parsed.rms_norm_eps, 1e-5);
  EXPECT_EQ(parsed.rope_theta, 500000.0);
  EXPECT_TRUE(parsed.tie_word_embeddings);
  EXPECT_TRUE(parsed.attention_bias);
  EXPECT_TRUE(parsed.mlp_bias);
  EXPECT_EQ(parsed.hidden_act, "gelu");
  EXPECT_EQ(parsed.max_position_embeddings, 8192);
  EXPECT_EQ(parsed.bos_token_id, 1);
  EXPECT_EQ(parsed.eos_token_ids, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(parsed.torch_dtype, "bfloat16");
  EXPECT_EQ(parsed.quantization_config["quant_method"], "billm");
}

TEST(Config, OtherSpellings) {
  EXPECT_EQ(with("dtype", "torch.float16").torch_dtype, "float16");
  EXPECT_EQ(with("hidden_act", "relu").hidden_act, "relu");
  EXPECT_EQ(with("eos_token_id", 7).eos_token_ids, (std::vector<int64_t>{7}));
  EXPECT_TRUE(with("eos_token_id", -1).eos_token_ids.empty());
  EXPECT_FALSE(with("bos_token_id", -1).bos_token_id.has_value());
  EXPECT_EQ(with("max_position_embeddings", 1000000000).max_position_embeddings, 1000000000);
  EXPECT_EQ(with("head_dim", 80).head_dim, 80);  // hidden_size / heads need not be whole then
}

TEST(Config, RopeScaling) {
  const ModelConfig linear = with("rope_scaling", json{{"type", "linear"}, {"factor", 2.0}});
  EXPECT_EQ(linear.rope_scaling.type, "linear");
  EXPECT_EQ(linear.rope_scaling.factor, 2.0);
  json llama3 = {
      {"rope_type", "llama3"}, {"factor", 8.0}, {"low_freq_factor", 2}, {"high_freq_factor", 5.5}};
  const RopeScaling scaling = with("rope_scaling", llama3).rope_scaling;
  EXPECT_EQ(scaling.type, "llama3");
  EXPECT_EQ(scaling.factor, 8.0);
  EXPECT_EQ(scaling.low_frequency, 2.0);
  EXPECT_EQ(scaling.high_frequency, 5.5);
  EXPECT_EQ(scaling.original_positions, 2048);  // max_position_embeddings
  llama3["original_max_position_embeddings"] = 100;
  EXPECT_EQ(with("rope_scaling", llama3).rope_scaling.original_positions, 100);
  json top = minimal();
  top["rope_scaling"] = llama3;
  top["original_max_position_embeddings"] = 50;
  EXPECT_EQ(parse(top).rope_scaling.original_positions, 50);
  EXPECT_EQ(with("rope_scaling", json{{"rope_type", "default"}}).rope_scaling.type, "");
  EXPECT_EQ(with("rope_scaling", json::object()).rope_scaling.type, "");
}

TEST(Config, RopeParameters) {
  const json plain = {{"rope_theta", 100000.0}, {"rope_type", "default"}};
  EXPECT_EQ(with("rope_parameters", plain).rope_theta, 100000.0);
  EXPECT_EQ(with("rope_parameters", plain).rope_scaling.type, "");
  const json yarn = {{"rope_theta", 1e6}, {"rope_type", "yarn"}, {"factor", 4}};
  EXPECT_EQ(with("rope_parameters", yarn).rope_theta, 1e6);
  EXPECT_EQ(with("rope_parameters", yarn).rope_scaling.type, "yarn");
  json both = minimal();
  both["rope_theta"] = 5000;
  both["rope_parameters"] = {{"rope_type", "default"}};
  EXPECT_EQ(parse(both).rope_theta, 5000.0);
  both["rope_parameters"]["rope_theta"] = 7000;
  EXPECT_EQ(parse(both).rope_theta, 7000.0);
  EXPECT_EQ(with("rope_parameters", json{{"full_attention", plain}}).rope_scaling.type,
            "per_layer");
  both["rope_scaling"] = {{"type", "linear"}, {"factor", 3}, {"rope_theta", 8000}};
  EXPECT_EQ(parse(both).rope_theta, 8000.0);  // rope_scaling counts
  EXPECT_EQ(parse(both).rope_scaling.type, "linear");
}

TEST(Config, BadRope) {
  expect_refused("rope_theta", "10000", "a number");
  expect_refused("rope_theta", 0, "above 0");
  expect_refused("rope_theta", -1.0, "above 0");
  expect_refused("rope_scaling", "linear", "an object");
  expect_refused("rope_scaling", json::array(), "an object");
  expect_bad_input(
      [] {
        with("rope_scaling", json{{"factor", 2}});
      },
      {"config.json: rope_scaling: rope_type: expected a string, got nothing"});
  expect_bad_input([] { with("rope_scaling", json{{"type", 2}}); }, {"rope_scaling: type"});
  expect_bad_input(
      [] {
        with("rope_parameters", json{{"rope_theta", false}});
      },
      {"rope_parameters: rope_theta", "got false"});
}

TEST(Config, BadRopeScaling) {
  const auto refused = [](json scaling, const std::string& expected) {
    expect_bad_input([&] { with("rope_scaling", scaling); },
                     {"config.json: rope_scaling: " + expected});
  };
  refused({{"type", "linear"}}, "factor: expected a number, got nothing");
  refused({{"type", "dynamic"}, {"factor", 0}}, "factor: expected a number above 0");
  refused({{"type", "dynamic"}, {"factor", "2"}}, "factor: expected a number above 0");
  refused({{"type", "llama3"}, {"factor", 8}}, "low_freq_factor: expected a number, got nothing");
  json llama3 = {
      {"type", "llama3"}, {"factor", 8}, {"low_freq_factor", 4}, {"high_freq_factor", 4}};
  refused(llama3, "high_freq_factor: expected more than low_freq_factor, got 4");
  llama3["high_freq_factor"] = 5;
  llama3["original_max_position_embeddings"] = 0;
  refused(llama3, "original_max_position_embeddings: expected an integer from 1");
}

json of_type(const char* model_type, const json& changes = json::object()) {
  json config = minimal();
  config["model_type"] = model_type;
  if (config["model_type"] == "opt") config["ffn_dim"] = 3072;
  config.update(changes);
  return config;
}

TEST(Config, DefaultsOfTransformersByModelType) {
  const json eight = {{"hidden_size", 512}, {"num_attention_heads", 8}};
  const ModelConfig mistral = parse(of_type("mistral", eight));
  EXPECT_EQ(mistral.num_key_value_heads, 8);
  EXPECT_EQ(mistral.max_position_embeddings, 131072);
  EXPECT_FALSE(mistral.tie_word_embeddings);
  const json many = {{"hidden_size", 2048}, {"num_attention_heads", 64}};
  EXPECT_EQ(parse(of_type("mistral", many)).num_key_value_heads, 8);
  EXPECT_EQ(parse(of_type("qwen2", many)).num_key_value_heads, 32);
  EXPECT_EQ(parse(of_type("qwen2", many)).head_dim, 32);
  EXPECT_EQ(parse(of_type("qwen3", many)).head_dim, 128);
  EXPECT_EQ(parse(of_type("qwen3", many)).max_position_embeddings, 32768);
  json null = of_type("mistral", many);
  null["num_key_value_heads"] = nullptr;
  EXPECT_EQ(parse(null).num_key_value_heads, 64);
  const ModelConfig opt = parse(of_type("opt"));
  EXPECT_EQ(opt.intermediate_size, 3072);
  EXPECT_EQ(opt.hidden_act, "relu");
  EXPECT_TRUE(opt.tie_word_embeddings);
  EXPECT_EQ(opt.embed_width, 576);
  EXPECT_FALSE(parse(of_type("opt", {{"tie_word_embeddings", false}})).tie_word_embeddings);
}

TEST(Config, KeysOfOptAlone) {
  const json changes = {{"word_embed_proj_dim", 512},
                        {"do_layer_norm_before", false},
                        {"_remove_final_layer_norm", true},
                        {"enable_bias", false},
                        {"layer_norm_elementwise_affine", false},
                        {"activation_function", "gelu"}};
  const ModelConfig opt = parse(of_type("opt", changes));
  EXPECT_EQ(opt.embed_width, 512);
  EXPECT_FALSE(opt.norm_before || opt.enable_bias || opt.norm_affine);
  EXPECT_TRUE(opt.remove_final_norm);
  EXPECT_EQ(opt.hidden_act, "gelu");
  const ModelConfig llama = parse(of_type("llama", changes));
  EXPECT_EQ(llama.embed_width, 576);
  EXPECT_TRUE(llama.norm_before && llama.enable_bias && llama.norm_affine);
  EXPECT_EQ(llama.hidden_act, "silu");
}

TEST(Config, Windows) {
  const auto windows = [](const char* model_type, json changes) {
    changes.update(json{{"num_hidden_layers", 4}, {"num_key_value_heads", 9}});
    return parse(of_type(model_type, changes)).windows;
  };
  using Windows = std::vector<int64_t>;
  EXPECT_EQ(windows("llama", {{"sliding_window", 7}}), Windows(4, 0));
  EXPECT_EQ(windows("mistral", {{"sliding_window", 7}}), Windows(4, 7));
  EXPECT_EQ(windows("mistral", json::object()), Windows(4, 4096));
  EXPECT_EQ(windows("mistral", {{"sliding_window", nullptr}}), Windows(4, 0));
  EXPECT_EQ(windows("qwen2", {{"sliding_window", 7}}), Windows(4, 0));
  const json used = {{"use_sliding_window", true}, {"sliding_window", 7}};
  const auto with_key = [&](const char* key, const json& value) {
    json changes = used;
    changes[key] = value;
    return changes;
  };
  EXPECT_EQ(windows("qwen2", used), Windows(4, 0));  // from the 28th on
  EXPECT_EQ(windows("qwen2", with_key("max_window_layers", 3)), (Windows{0, 0, 0, 7}));
  EXPECT_EQ(windows("qwen3", with_key("max_window_layers", 0)), Windows(4, 7));
  EXPECT_EQ(windows("qwen3", with_key("max_window_layers", 4)), Windows(4, 0));
  const json types = {"sliding_attention", "full_attention", "full_attention", "sliding_attention"};
  EXPECT_EQ(windows("qwen3", with_key("layer_types", types)), (Windows{7, 0, 0, 7}));
  const auto refused = [&](const json& changes, const std::string& expected) {
    expect_bad_input([&] { windows("qwen2", changes); }, {"config.json: " + expected});
  };
  refused(with_key("layer_types", json{"full_attention"}), "layer_types: expected a list of 4");
  refused(with_key("layer_types", "sliding_attention"), "layer_types: expected a list of 4");
  refused(with_key("layer_types", json{1, 2, 3, 4}), "layer_types: expected full_attention or");
  refused({{"layer_types", types}}, "sliding_window: expected a number, since layer_types");
  refused(with_key("sliding_window", 0), "sliding_window: expected an integer from 1");
  refused(with_key("max_window_layers", -1), "max_window_layers: expected an integer from 0");
  refused({{"use_sliding_window", 1}}, "use_sliding_window: expected true or false");
}

TEST(Config, MissingRequiredKeys) {
  for (const char* key : {"architectures", "model_type", "hidden_size", "intermediate_size",
                          "num_hidden_layers", "num_attention_heads", "vocab_size"}) {
    json config = minimal();
    config.erase(key);
    expect_bad_input([&] { parse(config); },
                     {std::string("config.json: ") + key + ": expected", "got nothing"});
    config[key] = nullptr;
    expect_bad_input([&] { parse(config); }, {std::string("config.json: ") + key});
  }
}

TEST(Config, AbsurdSizes) {
  for (const char* key :
       {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "vocab_size", "num_key_value_heads", "head_dim", "max_position_embeddings"}) {
    for (const char* value : {"0", "-1", "1.5", "\"9\"", "[]", "{}", "true", "9223372036854775807",
                              "18446744073709551615", "1e30"}) {
      expect_refused(key, parse_json(value), "an integer from 1 to");
    }
  }
}

TEST(Config, HeadsMustDivide) {
  expect_refused("num_key_value_heads", 2, "a divisor of num_attention_heads = 9");
  expect_refused("num_key_value_heads", 18, "a divisor");
  expect_refused("num_attention_heads", 7, "a divisor of hidden_size = 576");
}

TEST(Config, WrongTypes) {
  expect_refused("architectures", json::array(), "a list that starts with a class name");
  expect_refused("architectures", json::array({1}), "a list");
  expect_refused("architectures", "LlamaForCausalLM", "a list");
  expect_refused("model_type", 1, "a string");
  expect_refused("model_type", "", "not empty");
  expect_refused("tie_word_embeddings", 1, "true or false");
  expect_refused("attention_bias", "no", "true or false");
  expect_refused("mlp_bias", json::array(), "true or false");
  expect_refused("hidden_act", 3, "a string");
  expect_refused("rms_norm_eps", 0, "a number above 0");
  expect_refused("rms_norm_eps", 2, "at most 1");
  expect_refused("rms_norm_eps", "1e-5", "a number");
  expect_refused("bos_token_id", "1", "a token id");
  expect_refused("bos_token_id", 18446744073709551615u, "a token id");
  expect_refused("eos_token_id", json::array({1, 2.5}), "a token id");
  expect_refused("torch_dtype", 16, "a string");
  expect_refused("quantization_config", json::array(), "an object");
}

TEST(Config, NotJson) {
  expect_bad_input([] { parse_config("", "c"); }, {"c: expected JSON"});
  expect_bad_input([] { parse_config("{", "c"); }, {"syntax error at byte"});
  expect_bad_input([] { parse_config("[]", "c"); }, {"c: expected a JSON object, got array"});
  expect_bad_input([] { parse_config("null", "c"); }, {"got null"});
  expect_bad_input([] { parse_config(R"({"a":1,"a":2})", "c"); }, {"\"a\" twice"});
  expect_bad_input([] { parse_config(std::string(200, '['), "c"); }, {"64 levels"});
  expect_bad_input([] { parse_config(std::string(17 << 20, ' '), "c"); }, {"size"});
}

TEST(Config, ReadsAFile) {
  const ScratchDirectory scratch;
  EXPECT_EQ(read_config(scratch.write("config.json", dump_json(minimal()))).hidden_size, 576);
  const auto bad = scratch.write("bad.json", "{}");
  expect_bad_input([&] { read_config(bad); }, {bad.string() + ": architectures"});
}

}  // namespace
}  // namespace billm
