// The family table, and what is refused instead of being computed wrongly.
#include "billm/model/family.h"

#include <gtest/gtest.h>

#include <string>

#include "billm/base/error.h"
#include "billm/model/model.h"
#include "support/environment.h"
#include "support/tiny_checkpoint.h"

namespace billm {
namespace {

const char* const kConfig = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
  "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
  "num_key_value_heads": 2, "vocab_size": 80})";

ModelConfig changed(const std::string& patch) {
  nlohmann::json config = nlohmann::json::parse(kConfig);
  config.merge_patch(nlohmann::json::parse(patch));
  return parse_config(config.dump(), "config.json");
}

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_EQ(error.message().find('\n'), std::string::npos);
    return error.message();
  }
  return "no error";
}

std::string refusal(const std::string& patch) {
  return message_of([&] { model_spec(changed(patch), "config.json"); });
}

TEST(Family, LlamaAndMistral) {
  const ModelSpec spec = model_spec(changed("{}"), "config.json");
  EXPECT_EQ(spec.blocks(), 2);
  EXPECT_EQ(spec.module(1, spec.linear(LinearRole::kDown)), "model.layers.1.mlp.down_proj");
  const LinearSpec& key = spec.linear(LinearRole::kKey);
  EXPECT_EQ(key.out_width(spec.config), 32);
  EXPECT_EQ(key.in_width(spec.config), 64);
  EXPECT_STREQ(spec.head(), "lm_head.weight");
  EXPECT_STREQ(model_spec(changed(R"({"tie_word_embeddings": true})"), "").head(),
               "model.embed_tokens.weight");
  EXPECT_NO_THROW(model_spec(changed(R"({"architectures": ["MistralForCausalLM"]})"), ""));
  EXPECT_NO_THROW(model_spec(
      changed(R"({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 1.0}})"),
      ""));
}

TEST(Family, RefusesWhatItWouldComputeWrongly) {
  EXPECT_EQ(refusal(R"({"architectures": ["GPT2LMHeadModel"]})"),
            "config.json: architecture: expected one of LlamaForCausalLM, MistralForCausalLM, got "
            "GPT2LMHeadModel");
  EXPECT_EQ(refusal(R"({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}})"),
            "config.json: rope scaling: expected none, got llama3");
  EXPECT_EQ(refusal(R"({"attention_bias": true})"),
            "config.json: attention_bias: expected false, got true");
  EXPECT_EQ(refusal(R"({"mlp_bias": true})"), "config.json: mlp_bias: expected false, got true");
  EXPECT_EQ(refusal(R"({"hidden_act": "gelu"})"),
            "config.json: hidden_act: expected silu, got gelu");
  EXPECT_EQ(refusal(R"({"head_dim": 15})"),
            "config.json: head_dim: expected an even number, got 15");
  EXPECT_EQ(refusal(R"({"partial_rotary_factor": 0.5})"),
            "config.json: partial_rotary_factor: expected 1, got another value");
  EXPECT_EQ(refusal(R"({"rope_parameters": {"partial_rotary_factor": 0.5}})"),
            "config.json: partial_rotary_factor: expected 1, got another value");
}

TEST(Family, SlidingWindowMustCoverTheSequence) {
  const auto check = [](const std::string& patch, int64_t length) {
    return message_of([&] { check_length(model_spec(changed(patch), ""), length); });
  };
  EXPECT_EQ(check("{}", 100000), "no error");
  EXPECT_EQ(check(R"({"sliding_window": 2048})", 2048), "no error");
  EXPECT_EQ(check(R"({"sliding_window": 2047})", 2048),
            "config.json: sliding_window: expected at least the sequence length 2048, got 2047");
  const std::string mistral = R"({"architectures": ["MistralForCausalLM"])";
  EXPECT_EQ(check(mistral + "}", 4096), "no error");
  EXPECT_NE(check(mistral + "}", 4097), "no error");
  // merge_patch drops nulls, so an explicit null needs its own text.
  nlohmann::json config = nlohmann::json::parse(kConfig);
  config["architectures"] = {"MistralForCausalLM"};
  config["sliding_window"] = nullptr;
  EXPECT_NO_THROW(check_length(model_spec(parse_config(config.dump(), "config.json"), ""), 100000));
}

TEST(Family, CheckModelNamesMissingAndMisshapenTensors) {
  const auto open_without = [](const std::string& victim, std::vector<int64_t> shape) {
    const test::TemporaryDirectory directory;
    test::TinyLlama options;
    options.change = [&](const std::string& name, std::vector<int64_t>& s,
                         std::vector<uint16_t>& halves) {
      if (name != victim) return true;
      if (shape.empty()) return false;
      s = shape;
      halves.resize(static_cast<size_t>(shape[0] * (shape.size() > 1 ? shape[1] : 1)));
      return true;
    };
    test::write_tiny_llama(directory.path(), options);
    return message_of([&] { Model model(directory.path(), 1); });
  };
  EXPECT_EQ(open_without("none", {}), "no error");
  EXPECT_EQ(
      open_without("model.layers.1.mlp.up_proj.weight", {96, 63}),
      "model.safetensors: model.layers.1.mlp.up_proj.weight: expected [96, 64], got [96, 63]");
  for (const char* name :
       {"model.layers.0.self_attn.o_proj.weight", "model.norm.weight",
        "model.layers.1.input_layernorm.weight", "lm_head.weight", "model.embed_tokens.weight"}) {
    EXPECT_NE(open_without(name, {}).find(name), std::string::npos);
  }
}

}  // namespace
}  // namespace billm
