// A packed directory is evaluated as the dense model that its planes decode to, and a damaged one
// is refused.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "billm/base/error.h"
#include "billm/eval/perplexity.h"
#include "billm/generate/generator.h"
#include "kernels/cpu/targets.h"
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
  EXPECT_TRUE(evaluate(request_).kernels.empty());
  std::map<RunPacked, double> runs;
  for (const RunPacked run : {RunPacked::kDecode, RunPacked::kPrefill}) {
    request_.run_packed = run;
    request_.threads = 1;
    const EvalResult result = evaluate(request_);
    EXPECT_NE(result.nll_sum, decoded);
    EXPECT_NEAR(result.nll_sum, decoded, 0.002 * decoded);
    EXPECT_EQ(result.kernels, "cpu, " + kernels::best_target());
    request_.threads = 3;
    EXPECT_EQ(evaluate(request_).nll_sum, result.nll_sum);
    runs[run] = result.nll_sum;
  }
  EXPECT_NE(runs[RunPacked::kDecode], runs[RunPacked::kPrefill]);  // other kernels
  request_.model = path("original");
  EXPECT_THROW(evaluate(request_), Error);
}

// Token by token it is what generate computes.
TEST_F(PackedEval, DecodeIsTheGenerator) {
  write_packed(path("original"), path("packed"), some_codes(96, 64));
  request_.run_packed = RunPacked::kDecode;
  const EvalResult result = evaluate(request_);
  GeneratorRequest request;
  request.model = path("packed");
  request.context = request_.windows.cols;
  request.device = "cpu";
  request.run_head_bits = 32;
  Generator generator(request);
  for (int64_t window = 0; window < request_.windows.rows; ++window) {
    const std::span<const int32_t> tokens = request_.windows.row(window);
    generator.truncate(0);
    double nll = 0;
    for (size_t t = 0; t + 1 < tokens.size(); ++t) {
      const std::span<const float> logits = generator.append(tokens.subspan(t, 1));
      double sum = 0;
      for (const float logit : logits) sum += std::exp(double{logit});
      nll += std::log(sum) - logits[static_cast<size_t>(tokens[t + 1])];
    }
    EXPECT_NEAR(result.window_nll[static_cast<size_t>(window)], nll, 1e-5 * nll);
  }
}

// A rotated layer: what runs is near what the file decodes to.
TEST_F(PackedEval, RunsProducts) {
  LayerCodes rotated;
  rotated.factors = {Rotation{96, 3, true}, some_codes(96, 64), Rotation{64, 4, false}};
  write_packed(path("original"), path("packed"), rotated);
  const double decoded = evaluate(request_).nll_sum;
  for (const RunPacked path : {RunPacked::kDecode, RunPacked::kPrefill}) {
    request_.run_packed = path;
    request_.threads = 1;
    const double run = evaluate(request_).nll_sum;
    EXPECT_NE(run, decoded);
    EXPECT_NEAR(run, decoded, 0.002 * decoded);
    request_.threads = 3;
    EXPECT_EQ(evaluate(request_).nll_sum, run);
  }
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
