// Conversion of weights to fp32, by tensor and by row, and weights that are not finite.
#include "billm/model/weights.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "billm/base/error.h"
#include "billm/model/model.h"
#include "support/environment.h"
#include "support/packed_testing.h"
#include "support/tiny_checkpoint.h"

namespace billm {
namespace {

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    return error.message();
  }
  return "no error";
}

TEST(Weights, EveryWayOfReadingGivesTheSameValues) {
  const test::TemporaryDirectory directory;
  test::TinyLlama options;
  options.vocab = 201;  // more than one row tile, and a shorter last one
  test::write_tiny_llama(directory.path(), options);
  const Model model(directory.path(), 1);
  const std::string name = "model.embed_tokens.weight";
  const at::Tensor whole = model.weights().dense(name, 1);
  ASSERT_EQ(whole.sizes(), (at::IntArrayRef{201, 64}));
  const TensorView& view = model.checkpoint().tensor(name);
  std::vector<float> expected(201 * 64);
  convert_to_float(view.dtype, view.data, expected);
  EXPECT_EQ(
      std::vector<float>(whole.const_data_ptr<float>(), whole.const_data_ptr<float>() + 201 * 64),
      expected);
  EXPECT_TRUE(model.weights().dense(name, 2).equal(whole));
  EXPECT_TRUE(model.weights().rows(name, 63, 70).equal(whole.narrow(0, 63, 70)));
  const std::vector<int32_t> ids = {200, 0, 7, 7};
  const at::Tensor gathered = model.weights().gather(name, ids);
  for (int64_t i = 0; i < 4; ++i) EXPECT_TRUE(gathered[i].equal(whole[ids[i]]));
  const std::string module = "model.layers.1.mlp.down_proj";
  EXPECT_TRUE(
      model.weights().linear(module, 2).equal(model.weights().dense(module + ".weight", 1)));
  EXPECT_EQ(model.weights().dense("model.norm.weight", 1).sizes(), at::IntArrayRef{64});
}

// The embedding and the head of a packed model as integers: every way of reading decodes them.
TEST(Weights, IntegerRows) {
  const test::TemporaryDirectory directory;
  test::TinyLlama options;
  options.vocab = 201;
  const std::filesystem::path dense = directory.path() / "dense", out = directory.path() / "out";
  test::write_tiny_llama(dense, options);
  const Model original(dense, 1);
  std::map<std::string, IntegerRows> rows;
  std::vector<TensorToWrite> tensors;
  Metadata metadata = {{"format", "pt"}, {"billm_format", "3"}};
  const PackedLayer layer = pack(some_codes(96, 64));
  for_each_plane(layer, [&](const std::string& name, const Plane& plane) {
    tensors.push_back(
        {std::string(kModule) + "." + name, *parse_dtype(plane.dtype), plane.shape, plane.bytes});
  });
  metadata[kModule] = describe(layer);
  for (const auto& [module, bits] : {std::pair("model.embed_tokens", 8), {"lm_head", 4}}) {
    const at::Tensor weight = original.weights().dense(std::string(module) + ".weight", 1);
    IntegerRows made = make_integer_rows(201, 64, bits);
    round_rows(weight.const_data_ptr<float>(), 0, 201, 1, module, &made);
    metadata[module] = describe(made);
    for (const Plane& plane : made.planes) {
      tensors.push_back({std::string(module) + "." + plane.name, *parse_dtype(plane.dtype),
                         plane.shape, plane.bytes});
    }
    rows.emplace(module, std::move(made));
  }
  const auto write = [&](const std::set<std::string>& replaced) {
    std::filesystem::remove_all(out);
    replace_weight(dense, out, tensors, metadata,
                   {{"quantization_config", {{"quant_method", "billm"}, {"format_version", 3}}}},
                   replaced);
    write_manifest(out);
  };
  write({kModule, "model.embed_tokens", "lm_head"});
  {
    const Model model(out, 1);
    EXPECT_EQ(model.spec().head, "lm_head.weight");
    EXPECT_EQ(model.weights().integer_rows("model.norm.weight"), nullptr);
    for (const auto& [module, made] : rows) {
      const std::string name = module + ".weight";
      ASSERT_NE(model.weights().integer_rows(name), nullptr) << name;
      std::vector<float> values(201 * 64);
      decode_rows(made, 0, 201, values.data());
      const at::Tensor whole = model.weights().dense(name, 2);
      EXPECT_EQ(std::vector<float>(whole.const_data_ptr<float>(),
                                   whole.const_data_ptr<float>() + 201 * 64),
                values);
      EXPECT_TRUE(model.weights().rows(name, 63, 70).equal(whole.narrow(0, 63, 70)));
      const std::vector<int32_t> ids = {200, 0, 7, 7};
      const at::Tensor gathered = model.weights().gather(name, ids);
      for (int64_t i = 0; i < 4; ++i) EXPECT_TRUE(gathered[i].equal(whole[ids[i]]));
      model.weights().release(name);
    }
    EXPECT_EQ(
        message_of([&] { model.weights().gather("lm_head.weight", std::vector<int32_t>{201}); }),
        "lm_head.weight: token id 201 is outside the vocabulary of 201");
  }
  write({kModule, "model.embed_tokens"});
  EXPECT_EQ(message_of([&] { Model(out, 1); }),
            (out / "model.safetensors").string() +
                ": lm_head.weight: expected no such plane in this module");
  metadata["lm_head"].replace(metadata["lm_head"].find("201"), 3, "200");
  write({kModule, "model.embed_tokens", "lm_head"});
  EXPECT_NE(message_of([&] { Model(out, 1); }), "no error");
}

TEST(Weights, TokensOutsideTheVocabulary) {
  const test::TemporaryDirectory directory;
  test::write_tiny_llama(directory.path());
  const Model model(directory.path(), 1);
  for (const int32_t id : {80, -1}) {
    EXPECT_EQ(message_of([&] {
                model.weights().gather("model.embed_tokens.weight", std::vector<int32_t>{3, id});
              }),
              "model.safetensors: model.embed_tokens.weight: token id " + std::to_string(id) +
                  " is outside the vocabulary of 80");
  }
}

TEST(Weights, NotFiniteIsNamedWithItsPlace) {
  const struct {
    uint16_t half;
    const char* what;
  } cases[] = {{0x7e00, "NaN"}, {0xfe01, "NaN"}, {0x7c00, "infinity"}, {0xfc00, "infinity"}};
  for (const auto& [half, what] : cases) {
    const test::TemporaryDirectory directory;
    test::TinyLlama options;
    const std::string module = "model.layers.0.mlp.gate_proj";
    options.change = [&](const std::string& name, std::vector<int64_t>&,
                         std::vector<uint16_t>& halves) {
      if (name == module + ".weight") halves[70 * 64 + 5] = half;
      return true;
    };
    test::write_tiny_llama(directory.path(), options);
    const Model model(directory.path(), 1);
    const std::string expected =
        "model.safetensors: " + module + ".weight: " + what + " at [70, 5]";
    EXPECT_EQ(message_of([&] { model.weights().linear(module, 2); }), expected);
    EXPECT_EQ(message_of([&] { model.weights().rows(module + ".weight", 69, 3); }), expected);
    EXPECT_NO_THROW(model.weights().rows(module + ".weight", 71, 3));
  }
}

}  // namespace
}  // namespace billm
