// The family table, and what is refused instead of being computed wrongly.
#include "billm/model/family.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "billm/base/error.h"
#include "billm/base/json_text.h"
#include "billm/model/model.h"
#include "support/environment.h"
#include "support/tiny_checkpoint.h"

namespace billm {
namespace {

const char* const kConfig = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
  "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
  "num_key_value_heads": 2, "vocab_size": 80})";

const char* const kMistral =
    R"({"architectures": ["MistralForCausalLM"], "model_type": "mistral"})";

ModelConfig changed(const std::string& patch) {
  nlohmann::json config = parse_json(kConfig);
  config.merge_patch(parse_json(patch));
  return parse_config(dump_json(config), "config.json");
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
  EXPECT_EQ(spec.head, "lm_head.weight");
  EXPECT_EQ(model_spec(changed(R"({"tie_word_embeddings": true})"), "").head,
            "model.embed_tokens.weight");
  EXPECT_NO_THROW(model_spec(changed(kMistral), ""));
  EXPECT_NO_THROW(model_spec(
      changed(R"({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 1.0}})"),
      ""));
}

TEST(Family, RefusesWhatItWouldComputeWrongly) {
  EXPECT_EQ(refusal(R"({"architectures": ["GPT2LMHeadModel"]})"),
            "config.json: architecture: expected one of LlamaForCausalLM, LLaMAForCausalLM, "
            "LlamaModel, MistralForCausalLM, MistralModel, Qwen2ForCausalLM, Qwen2Model, "
            "Qwen3ForCausalLM, Qwen3Model, OPTForCausalLM, OPTModel, got GPT2LMHeadModel");
  EXPECT_EQ(refusal(R"({"architectures": ["MistralForCausalLM"]})"),
            "config.json: model_type: expected mistral of MistralForCausalLM, got llama");
  for (const char* type : {"yarn", "longrope", "su"}) {
    EXPECT_EQ(refusal(R"({"rope_scaling": {"factor": 8.0, "rope_type": ")" + std::string(type) +
                      R"("}})"),
              "config.json: rope scaling: expected one of default, linear, dynamic, llama3, got " +
                  std::string(type));
  }
  EXPECT_EQ(refusal(R"({"hidden_act": "quick_gelu"})"),
            "config.json: activation function: expected one of silu, swish, relu, gelu, got "
            "quick_gelu");
  EXPECT_EQ(refusal(R"({"head_dim": 15})"),
            "config.json: head_dim: expected an even number, got 15");
  EXPECT_EQ(refusal(R"({"head_dim": 2, "rope_scaling": {"type": "dynamic", "factor": 2.0}})"),
            "config.json: head_dim: expected an even number above 2, got 2");
  EXPECT_EQ(refusal(R"({"partial_rotary_factor": 0.5})"),
            "config.json: partial_rotary_factor: expected 1, got another value");
  EXPECT_EQ(refusal(R"({"rope_parameters": {"partial_rotary_factor": 0.5}})"),
            "config.json: partial_rotary_factor: expected 1, got another value");
}

TEST(Family, LearnedPositionsMustCoverTheSequence) {
  const ModelConfig config = changed(
      R"({"architectures": ["OPTForCausalLM"], "model_type": "opt", "ffn_dim": 96,
          "num_key_value_heads": null, "max_position_embeddings": 100})");
  const auto check = [&](int64_t length) {
    return message_of([&] { check_length(model_spec(config, ""), length); });
  };
  EXPECT_EQ(check(100), "no error");
  EXPECT_EQ(check(101),
            "config.json: max_position_embeddings: expected at least the sequence length 101, got "
            "100");
}

// What check_length() writes to stderr; it throws nothing.
std::string warning(const std::string& patch, int64_t length) {
  const ModelSpec spec = model_spec(changed(patch), "");
  testing::internal::CaptureStderr();
  check_length(spec, length);
  return testing::internal::GetCapturedStderr();
}

TEST(Family, RotaryPositionsBeyondThoseOfTheTrainingAreWarnedOf) {
  EXPECT_EQ(warning("{}", 2048), "");
  EXPECT_EQ(warning("{}", 2049),
            "billm: warning: max_position_embeddings: expected at least the sequence length 2049, "
            "got 2048: the model may not have learned such positions\n");
  EXPECT_EQ(warning(R"({"max_position_embeddings": 5000})", 2049), "");
  EXPECT_EQ(warning(R"({"rope_scaling": {"type": "dynamic", "factor": 2.0}})", 2049), "");
  EXPECT_NE(warning(R"({"rope_scaling": {"type": "linear", "factor": 2.0}})", 2049), "");
  EXPECT_EQ(warning(kMistral, 131072), "");  // whatever its window
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

// A tiny model with these tensors besides, or with another shape.
std::string open_with(const std::string& patch, const std::map<std::string, int64_t>& vectors) {
  const test::TemporaryDirectory directory;
  test::TinyLlama options;
  options.config_changes = parse_json(patch);
  options.vectors = vectors;
  test::write_tiny_llama(directory.path(), options);
  return message_of([&] { Model model(directory.path(), 1); });
}

TEST(Family, BiasesMustBeThoseOfTheFamily) {
  const std::string q = "model.layers.0.self_attn.q_proj.bias";
  EXPECT_NE(open_with("{}", {{q, 64}}).find(q + ": expected no bias in this module"),
            std::string::npos);
  const std::string norm = "model.layers.1.input_layernorm.bias";
  EXPECT_NE(open_with("{}", {{norm, 64}}).find(norm + ": expected no bias"), std::string::npos);
  EXPECT_EQ(open_with("{}", {{"model.layers.0.self_attn.rotary_emb.inv_freq", 8}}), "no error");
  std::map<std::string, int64_t> biases;
  for (const char* block : {"0", "1"}) {
    const std::string prefix = std::string("model.layers.") + block + ".mlp.";
    biases[prefix + "gate_proj.bias"] = biases[prefix + "up_proj.bias"] = 96;
    biases[prefix + "down_proj.bias"] = 64;
  }
  const char* const flag = R"({"mlp_bias": true})";
  EXPECT_EQ(open_with(flag, biases), "no error");
  biases["model.layers.1.mlp.down_proj.bias"] = 63;
  EXPECT_EQ(open_with(flag, biases),
            "model.safetensors: model.layers.1.mlp.down_proj.bias: expected [64], got [63]");
  biases.erase("model.layers.1.mlp.down_proj.bias");
  EXPECT_NE(open_with(flag, biases).find("model.layers.1.mlp.down_proj.bias: expected this tensor"),
            std::string::npos);
}

}  // namespace
}  // namespace billm
