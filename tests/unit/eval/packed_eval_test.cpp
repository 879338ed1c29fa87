// A packed directory is evaluated as the dense model that its planes decode to, and a damaged one
// is refused.
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "billm/base/error.h"
#include "billm/base/sha256.h"
#include "billm/checkpoint/checkpoint.h"
#include "billm/checkpoint/safetensors.h"
#include "billm/codes/quantized_linear.h"
#include "billm/eval/perplexity.h"
#include "billm/pack/packed_linear.h"
#include "support/environment.h"
#include "support/tiny_checkpoint.h"

namespace billm {
namespace {

constexpr const char* kModule = "model.layers.1.mlp.up_proj";

// Codes without meaning but of every region: [rows, cols].
QuantizedLinear some_codes(int64_t rows, int64_t cols) {
  LinearShape shape;
  shape.rows = rows;
  shape.cols = cols;
  shape.block_size = 32;
  shape.salient_classes = 0;
  shape.scale_format = ScaleFormat::kF16;
  QuantizedLinear linear = make_quantized_linear(shape);
  for (size_t i = 0; i < linear.region.size(); ++i) {
    linear.region[i] = static_cast<uint8_t>(1 + i * i % 7 % 2);
    linear.code[i] = static_cast<uint8_t>(i * i * i % 11 % 2);
  }
  for (size_t i = 0; i < linear.scale.size(); ++i) {
    linear.scale[i] = 0.125f + 0.03125f * static_cast<float>(i % 5);
  }
  check_codes(linear);
  return linear;
}

// Copies the model in `dense` to `out` with the module's weight replaced by `replacement`.
void replace_weight(const std::filesystem::path& dense, const std::filesystem::path& out,
                    std::vector<TensorToWrite> replacement, const Metadata& metadata,
                    const nlohmann::json& config_changes) {
  std::filesystem::create_directories(out);
  const Checkpoint checkpoint(dense);
  std::vector<TensorToWrite> tensors = std::move(replacement);
  for (const std::string& name : checkpoint.names()) {
    if (name == std::string(kModule) + ".weight") continue;
    const TensorView& view = checkpoint.tensor(name);
    tensors.push_back({name, view.dtype, view.shape, view.data});
  }
  write_safetensors(out / "model.safetensors", tensors, metadata);
  nlohmann::json config = checkpoint.config().raw;
  config.merge_patch(config_changes);
  std::ofstream(out / "config.json") << config.dump();
}

void write_manifest(const std::filesystem::path& directory) {
  nlohmann::json manifest = {{"format_version", 1}};
  for (const char* name : {"config.json", "model.safetensors"}) {
    manifest["files"][name] = {{"sha256", sha256_file(directory / name)},
                               {"bytes", std::filesystem::file_size(directory / name)}};
  }
  const std::string text = manifest.dump();
  std::ofstream(directory / "manifest.json") << text;
  std::ofstream(directory / "manifest.sha256") << sha256_hex(text) << "  manifest.json\n";
}

void write_packed(const std::filesystem::path& dense, const std::filesystem::path& out,
                  const QuantizedLinear& linear) {
  const PackedLinear packed = pack(linear);
  std::vector<TensorToWrite> planes;
  for (const Plane& plane : packed.planes) {
    planes.push_back({std::string(kModule) + "." + plane.name, *parse_dtype(plane.dtype),
                      plane.shape, plane.bytes});
  }
  replace_weight(dense, out, std::move(planes),
                 {{"format", "pt"}, {"billm_format", "1"}, {kModule, describe(packed)}},
                 {{"quantization_config", {{"quant_method", "billm"}, {"format_version", 1}}}});
  write_manifest(out);
}

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
  const QuantizedLinear linear = some_codes(96, 64);
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
