// config.json: what real files look like, defaults, and one clear line for what is wrong.
#include "billm/checkpoint/config.h"

#include "testing.h"

namespace billm {
namespace {

using nlohmann::json;

json minimal() {
  return json::parse(R"({"architectures":["LlamaForCausalLM"],"model_type":"llama",
    "hidden_size":576,"intermediate_size":1536,"num_hidden_layers":30,"num_attention_heads":9,
    "vocab_size":49152})");
}

ModelConfig parse(const json& value) { return parse_config(value.dump(), "config.json"); }

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
  EXPECT_EQ(config.rope_scaling_type, "");
  EXPECT_TRUE(config.rope_scaling.is_null());
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
  config.update(json::parse(R"({"num_key_value_heads":3,"head_dim":128,"rms_norm_eps":1e-5,
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
  EXPECT_EQ(with("activation_function", "relu").hidden_act, "relu");
  EXPECT_EQ(with("eos_token_id", 7).eos_token_ids, (std::vector<int64_t>{7}));
  EXPECT_TRUE(with("eos_token_id", -1).eos_token_ids.empty());
  EXPECT_FALSE(with("bos_token_id", -1).bos_token_id.has_value());
  json opt = minimal();
  opt.erase("intermediate_size");
  opt["ffn_dim"] = 3072;
  EXPECT_EQ(parse(opt).intermediate_size, 3072);
  EXPECT_EQ(with("max_position_embeddings", 1000000000).max_position_embeddings, 1000000000);
  EXPECT_EQ(with("head_dim", 80).head_dim, 80);  // hidden_size / heads need not be whole then
}

TEST(Config, RopeScaling) {
  EXPECT_EQ(with("rope_scaling", json{{"type", "linear"}, {"factor", 2.0}}).rope_scaling_type,
            "linear");
  const json llama3 = {{"rope_type", "llama3"}, {"factor", 8.0}};
  EXPECT_EQ(with("rope_scaling", llama3).rope_scaling_type, "llama3");
  EXPECT_EQ(with("rope_scaling", llama3).rope_scaling, llama3);
  EXPECT_TRUE(with("rope_scaling", json{{"rope_type", "default"}}).rope_scaling.is_null());
  EXPECT_EQ(with("rope_scaling", json{{"rope_type", "default"}}).rope_scaling_type, "");
  EXPECT_EQ(with("rope_scaling", json::object()).rope_scaling_type, "");
}

TEST(Config, RopeParameters) {
  const json plain = {{"rope_theta", 100000.0}, {"rope_type", "default"}};
  EXPECT_EQ(with("rope_parameters", plain).rope_theta, 100000.0);
  EXPECT_EQ(with("rope_parameters", plain).rope_scaling_type, "");
  const json yarn = {{"rope_theta", 1e6}, {"rope_type", "yarn"}, {"factor", 4}};
  EXPECT_EQ(with("rope_parameters", yarn).rope_theta, 1e6);
  EXPECT_EQ(with("rope_parameters", yarn).rope_scaling_type, "yarn");
  EXPECT_EQ(with("rope_parameters", yarn).rope_scaling, yarn);
  json both = minimal();
  both["rope_theta"] = 5000;
  both["rope_parameters"] = {{"rope_type", "default"}};
  EXPECT_EQ(parse(both).rope_theta, 5000.0);
  both["rope_parameters"]["rope_theta"] = 7000;
  EXPECT_EQ(parse(both).rope_theta, 7000.0);
  EXPECT_EQ(with("rope_parameters", json{{"full_attention", plain}}).rope_scaling_type,
            "per_layer");
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
      expect_refused(key, json::parse(value), "an integer from 1 to");
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
  EXPECT_EQ(read_config(scratch.write("config.json", minimal().dump())).hidden_size, 576);
  const auto bad = scratch.write("bad.json", "{}");
  expect_bad_input([&] { read_config(bad); }, {bad.string() + ": architectures"});
}

}  // namespace
}  // namespace billm
