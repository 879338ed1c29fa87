// A packed directory is evaluated as the dense model that its planes decode to, and a damaged one
// is refused.
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "billm/base/error.h"
#include "billm/eval/perplexity.h"
#include "support/environment.h"
#include "support/packed_testing.h"
#include "support/tiny_checkpoint.h"

namespace billm {
namespace {

class PackedEval : public testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_llama(path("original"));
    request_.model = path("packed");
    request_.windows = {2, 30, {}};
    for (int32_t i = 0; i < 60; ++i) request_.windows.values.push_back(i * i * 7 % 80);
  }
  std::filesystem::path path(const char* name) const { return directory_.path() / name; }
  std::string message() const {
    try {
      evaluate(request_);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      return error.message();
    }
    return "no error";
  }

  test::TemporaryDirectory directory_;
  EvalRequest request_;
};

TEST_F(PackedEval, EqualsTheDecodedDenseModelBitForBit) {
  const RegionCodes linear = some_codes(96, 64);
  write_packed(path("original"), path("packed"), linear);
  const std::vector<float> weight = dequantize(linear);
  replace_weight(
      path("original"), path("decoded"),
      {{std::string(kModule) + ".weight", DType::F32, {96, 64}, std::as_bytes(std::span(weight))}},
      {}, nlohmann::json::object());
  for (const int threads : {1, 2}) {
    request_.threads = threads;
    request_.model = path("decoded");
    const EvalResult expected = evaluate(request_);
    request_.model = path("packed");
    EXPECT_EQ(evaluate(request_).nll_sum, expected.nll_sum);
    request_.model = path("original");
    EXPECT_NE(evaluate(request_).nll_sum, expected.nll_sum);
  }
  request_.model = path("packed");
  request_.kl_model = path("decoded");
  EXPECT_EQ(evaluate(request_).kl_mean, 0.0);
}

TEST_F(PackedEval, RunPackedIsNearTheDecodedModel) {
  write_packed(path("original"), path("packed"), some_codes(96, 64));
  const double decoded = evaluate(request_).nll_sum;
  request_.run_packed = true;
  const double run = evaluate(request_).nll_sum;
  EXPECT_NE(run, decoded);
  EXPECT_NEAR(run, decoded, 0.002 * decoded);
  request_.threads = 3;
  EXPECT_EQ(evaluate(request_).nll_sum, run);
  request_.model = path("original");
  EXPECT_THROW(evaluate(request_), Error);
}

// A rotated layer: what runs is near what the file decodes to.
TEST_F(PackedEval, RunsProducts) {
  LayerCodes rotated;
  rotated.factors = {Rotation{96, 3, true}, some_codes(96, 64), Rotation{64, 4, false}};
  write_packed(path("original"), path("packed"), rotated);
  const double decoded = evaluate(request_).nll_sum;
  request_.run_packed = true;
  const double run = evaluate(request_).nll_sum;
  EXPECT_NE(run, decoded);
  EXPECT_NEAR(run, decoded, 0.002 * decoded);
  request_.threads = 3;
  EXPECT_EQ(evaluate(request_).nll_sum, run);
  request_.device = "cuda";
  try {
    evaluate(request_);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.message(), "device cuda: " + std::string(kModule) +
                                   " is a product of factors, which the CUDA kernels do not run "
                                   "yet");
  }
}

TEST_F(PackedEval, OtherShapeThanTheConfigSays) {
  write_packed(path("original"), path("packed"), some_codes(64, 96));
  EXPECT_EQ(message(),
            path("packed").string() + ": " + kModule + ": expected [96, 64], got [64, 96]");
}

TEST_F(PackedEval, FlippedBit) {
  write_packed(path("original"), path("packed"), some_codes(96, 64));
  const auto file = path("packed") / "model.safetensors";
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(-100, std::ios::end);
  const char byte = static_cast<char>(stream.peek() ^ 1);
  stream.seekp(-100, std::ios::end);
  stream.put(byte);
  stream.close();
  EXPECT_EQ(message(), file.string() + ": checksum does not match manifest.json");
}

}  // namespace
}  // namespace billm
