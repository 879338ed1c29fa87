// Conversion of weights to fp32, by tensor and by row, and weights that are not finite.
#include "billm/model/weights.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "billm/base/error.h"
#include "billm/model/model.h"
#include "support/environment.h"
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
