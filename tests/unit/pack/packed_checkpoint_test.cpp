// A packed model directory: opening its modules, and that the manifest notices any change.
#include "billm/pack/packed_checkpoint.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "billm/base/error.h"
#include "billm/base/json_text.h"
#include "billm/base/sha256.h"
#include "billm/checkpoint/safetensors.h"
#include "support/environment.h"
#include "support/random_layer.h"
#include "support/tiny_checkpoint.h"

namespace billm::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Two packed modules in the first shard, one dense tensor in the second.
class PackedModel : public testing::Test {
 protected:
  PackedModel() {
    TinyLlama tiny;
    tiny.hidden = tiny.intermediate = tiny.vocab = 8;
    tiny.heads = tiny.kv_heads = tiny.blocks = 1;
    tiny.head_dim = 8;
    tiny.config_changes = {
        {"quantization_config", {{"quant_method", "billm"}, {"format_version", 1}}}};
    write_tiny_llama(path(), tiny);
    fs::remove(path() / "model.safetensors");
    RegionFormat shape;
    shape.rows = 5;
    shape.cols = 21;
    shape.block_size = 16;
    linears_["layer.q_proj"] = random_codes(shape, 1);
    shape.nm = {4, 8};
    shape.classes = 3;
    shape.rows = 3;
    linears_["layer.v_proj"] = random_codes(shape, 2);
    shape.nm = {};
    shape.cols = 70;
    shape.integer_bits = 8;
    shape.scattered = true;
    linears_["layer.w_proj"] = random_codes(shape, 3);
    linears_["layer.x_rotated"] =
        product({Rotation{6, 7, true}, small_factor(6, 20), Rotation{20, 8, false}});
    linears_["layer.y_binary"] = product({small_factor(9, 8), small_factor(8, 20)});
    for (const auto& [name, codes] : linears_) {
      packed_.push_back(pack(codes));
      metadata_[name] = describe(packed_.back());
      for_each_plane(
          packed_.back(), [&, module = name](const std::string& plane_name, const Plane& plane) {
            tensors_.push_back(
                {module + "." + plane_name, *parse_dtype(plane.dtype), plane.shape, plane.bytes});
          });
    }
    write();
  }

  static RegionCodes small_factor(int64_t rows, int64_t cols) {
    RegionFormat format;
    format.rows = rows;
    format.cols = cols;
    format.classes = 1;
    format.salient_classes = 0;
    return random_codes(format, static_cast<uint32_t>(rows));
  }
  static LayerCodes product(std::vector<Factor> factors) {
    LayerCodes codes;
    codes.factors = std::move(factors);
    return codes;
  }

  const fs::path& path() const { return directory_.path(); }

  void write() {
    write_safetensors(path() / kFirst, tensors_, metadata_);
    static constexpr std::byte kDense[4] = {};
    write_safetensors(path() / kSecond, {{"norm.weight", DType::F16, {2}, kDense}},
                      {{"format", "pt"}});
    json map = {{"norm.weight", kSecond}};
    for (const TensorToWrite& tensor : tensors_) map[tensor.name] = kFirst;
    write_text("model.safetensors.index.json", dump_json(json{{"weight_map", map}}));
    json files;
    for (const char* name : kFiles) {
      files[name] = {{"bytes", fs::file_size(path() / name)},
                     {"sha256", sha256_file(path() / name)}};
    }
    write_manifest({{"format_version", 2}, {"files", files}});
  }

  void write_text(const std::string& name, const std::string& text) const {
    std::ofstream(path() / name, std::ios::binary) << text;
  }

  void write_manifest(const json& manifest) {
    manifest_ = manifest;
    write_text("manifest.json", dump_json(manifest));
    write_text("manifest.sha256", sha256_hex(dump_json(manifest)) + "  manifest.json\n");
  }

  // Runs `body`, which must throw Error{kBadInput} with one line that contains `part`.
  static void expect_bad_input(const std::function<void()>& body, const std::string& part) {
    try {
      body();
      ADD_FAILURE() << "no error, expected one with: " << part;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      EXPECT_EQ(error.message().find('\n'), std::string::npos) << error.message();
      EXPECT_NE(error.message().find(part), std::string::npos)
          << "expected \"" << part << "\" in: " << error.message();
    }
  }
  void expect_manifest_refused(const std::string& part) const {
    for (const int threads : {1, 3}) {
      expect_bad_input([&] { verify_manifest(path(), threads); }, part);
    }
  }
  void expect_modules_refused(const std::string& part) {
    write();
    expect_bad_input(
        [&] {
          const Checkpoint checkpoint(path());
          const PackedModules modules(checkpoint);
          for (const std::string& name : modules.names()) modules.open(name);
        },
        part);
  }

  static constexpr const char* kFirst = "model-00001-of-00002.safetensors";
  static constexpr const char* kSecond = "model-00002-of-00002.safetensors";
  static constexpr const char* kFiles[] = {"config.json", kFirst, kSecond,
                                           "model.safetensors.index.json"};
  TemporaryDirectory directory_;
  std::map<std::string, LayerCodes> linears_;
  std::vector<PackedLayer> packed_;
  std::vector<TensorToWrite> tensors_;
  Metadata metadata_ = {{"format", "pt"}, {"billm_format", "2"}};
  json manifest_;
};

TEST_F(PackedModel, OpensWhatWasPacked) {
  verify_manifest(path(), 2);
  const Checkpoint checkpoint(path());
  ASSERT_TRUE(is_packed_model(checkpoint));
  const PackedModules modules(checkpoint);
  EXPECT_EQ(modules.names(), (std::set<std::string>{"layer.q_proj", "layer.v_proj", "layer.w_proj",
                                                    "layer.x_rotated", "layer.y_binary"}));
  EXPECT_TRUE(modules.has("layer.q_proj"));
  EXPECT_FALSE(modules.has("norm"));
  for (const auto& [name, linear] : linears_) {
    EXPECT_EQ(modules.size(name).rows, linear.rows());
    EXPECT_EQ(modules.size(name).cols, linear.cols());
    const PackedLayer packed = modules.open(name);
    std::vector<float> weight(static_cast<size_t>(linear.rows() * linear.cols()));
    for (const int threads : {1, 3}) {
      decode(packed, threads, weight.data());
      EXPECT_EQ(weight, dequantize(linear));
    }
    EXPECT_EQ(dequantize(unpack(packed)), weight);
    EXPECT_EQ(packed.product(), linear.factors.size() > 1);
    int64_t bytes = 0;
    for (const std::string& tensor : modules.tensors(name)) {
      EXPECT_EQ(modules.module_of(tensor), name);
      bytes += static_cast<int64_t>(checkpoint.tensor(tensor).data.size());
    }
    EXPECT_EQ(bytes, modules.bytes(name));
  }
  EXPECT_EQ(modules.module_of("layer.q_proj.bias"), "");
  EXPECT_EQ(modules.module_of("norm.weight"), "");
  EXPECT_EQ(modules.open("layer.q_proj").bytes() + modules.open("layer.v_proj").bytes(),
            packed_[0].bytes() + packed_[1].bytes());
  expect_bad_input([&] { modules.open("layer.k_proj"); }, "layer.k_proj");
  expect_bad_input([&] { modules.size("norm"); }, "norm");
}

TEST_F(PackedModel, IsPackedModel) {
  const auto with = [&](const json& quantization) {
    json config = parse_json(read_text_file(path() / "config.json"));
    config["quantization_config"] = quantization;
    write_text("config.json", dump_json(config));
    return is_packed_model(Checkpoint(path()));
  };
  EXPECT_TRUE(with({{"quant_method", "billm"}, {"format_version", 1}}));
  EXPECT_FALSE(with({{"quant_method", "gptq"}, {"bits", 4}}));
  EXPECT_FALSE(with({{"quant_method", 5}}));
  EXPECT_FALSE(with(json::object()));
  EXPECT_TRUE(with({{"quant_method", "billm"}, {"format_version", 2}}));
  EXPECT_TRUE(with({{"quant_method", "billm"}, {"format_version", 3}}));
  expect_bad_input([&] { with({{"quant_method", "billm"}, {"format_version", 4}}); }, "got 4");
  expect_bad_input([&] { with({{"quant_method", "billm"}}); }, "format_version");
  expect_bad_input(
      [&] {
        with({{"quant_method", "billm"}, {"format_version", "1"}});
      },
      "expected 1");
}

TEST_F(PackedModel, EveryByteOfEveryFileCounts) {
  for (const char* name : kFiles) {
    SCOPED_TRACE(name);
    const std::string good = read_text_file(path() / name);
    // Every byte of small files, about 200 of larger ones.
    for (size_t at = 0; at < good.size(); at += 1 + good.size() / 200) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ (1 << at % 8));
      write_text(name, bad);
      expect_manifest_refused(std::string(name) + ": checksum does not match");
    }
    write_text(name, good + "x");
    expect_manifest_refused(std::string(name) + ": expected");
    write_text(name, good.substr(1));
    expect_manifest_refused(std::string(name) + ": expected");
    fs::remove(path() / name);
    expect_manifest_refused(name);
    write_text(name, good);
    EXPECT_NO_THROW(verify_manifest(path(), 1));
  }
}

TEST_F(PackedModel, ManifestItself) {
  const std::string good = read_text_file(path() / "manifest.json");
  for (size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    write_text("manifest.json", bad);
    expect_manifest_refused("does not match manifest.sha256");
  }
  write_text("manifest.json", good);
  for (const std::string own : {"", "\n", "0  manifest.json\n"}) {
    write_text("manifest.sha256", own);
    expect_manifest_refused("manifest.sha256");
  }
  fs::remove(path() / "manifest.sha256");
  expect_manifest_refused("manifest.sha256");
  fs::remove(path() / "manifest.json");
  expect_manifest_refused("manifest.json");
  expect_bad_input([] { verify_manifest("/nowhere", 1); }, "/nowhere/manifest.json");
}

TEST_F(PackedModel, ManifestContent) {
  const json good = manifest_;
  const auto refuse = [&](const std::function<void(json&)>& change, const std::string& part) {
    json bad = good;
    change(bad);
    write_manifest(bad);
    expect_manifest_refused(part);
  };
  refuse([](json& m) { m["format_version"] = 4; }, "format_version: expected 1 to 3, got 4");
  refuse([](json& m) { m["format_version"] = "1"; }, "format_version");
  refuse([](json& m) { m.erase("format_version"); }, "got nothing");
  refuse([](json& m) { m.erase("files"); }, "files");
  refuse([](json& m) { m["files"] = json::array(); }, "files");
  refuse([](json& m) { m["files"].erase(kSecond); }, "not listed in manifest.json");
  refuse([](json& m) { m["files"]["config.json"] = 1; }, "config.json");
  refuse([](json& m) { m["files"]["config.json"].erase("bytes"); }, "config.json");
  refuse([](json& m) { m["files"]["config.json"]["sha256"] = 7; }, "config.json");
  refuse([](json& m) { m["files"]["config.json"]["bytes"] = -1; }, "config.json");
  refuse([](json& m) { m["files"]["../x"] = m["files"]["config.json"]; }, "../x");
  refuse([](json& m) { m["files"]["a\nb"] = m["files"]["config.json"]; }, "a?b");
  refuse([](json& m) { m["files"]["absent"] = m["files"]["config.json"]; }, "absent");
  write_text("manifest.json", "[]");
  write_text("manifest.sha256", sha256_hex("[]") + "  manifest.json\n");
  expect_manifest_refused("expected a JSON object");
}

TEST_F(PackedModel, ExtraShard) {
  fs::copy_file(path() / kSecond, path() / "model-00003-of-00002.safetensors");
  expect_manifest_refused("model-00003-of-00002.safetensors: not listed");
}

TEST_F(PackedModel, OtherVersionOfAShard) {
  metadata_["billm_format"] = "4";
  expect_modules_refused("billm_format: expected 1 to 3, got 4");
  // What a reader of version 1 cannot know must not be called so.
  metadata_["billm_format"] = "1";
  expect_modules_refused("layer.x_rotated: a layer of layout product in a shard of billm_format 1");
}

TEST_F(PackedModel, NothingPacked) {
  metadata_.erase("billm_format");
  expect_modules_refused("no packed module");
}

TEST_F(PackedModel, BadDescriptions) {
  metadata_["layer.q_proj"] = "{}";
  expect_modules_refused("layer.q_proj");
  metadata_["layer.q_proj"] = R"({"rows":5})";
  expect_modules_refused("layer.q_proj");
  metadata_["layer.q_proj"] = metadata_["layer.v_proj"];  // planes of another shape
  expect_modules_refused("layer.q_proj");
}

TEST_F(PackedModel, MissingAndForeignPlanes) {
  const std::vector<TensorToWrite> good = tensors_;
  tensors_.erase(tensors_.begin());
  expect_modules_refused("layer.q_proj: missing plane signs");
  tensors_ = good;
  static constexpr std::byte kByte[1] = {};
  tensors_.push_back({"layer.q_proj.extra", DType::U8, {1}, kByte});
  expect_modules_refused("layer.q_proj");
  tensors_ = good;
  tensors_[0].dtype = DType::I8;
  expect_modules_refused("layer.q_proj.signs");
}

// Also where nothing would ever open it.
TEST_F(PackedModel, DescribedWithoutPlanes) {
  metadata_["layer.z_proj"] = metadata_["layer.q_proj"];
  write();
  const Checkpoint checkpoint(path());
  expect_bad_input([&] { const PackedModules modules(checkpoint); },
                   "layer.z_proj: described, but none of its planes");
}

TEST_F(PackedModel, PlanesOfProducts) {
  const std::vector<TensorToWrite> good = tensors_;
  const auto with_name = [&](const std::string& from, const std::string& to) {
    tensors_ = good;
    for (TensorToWrite& tensor : tensors_) {
      if (tensor.name == from) tensor.name = to;
    }
  };
  with_name("layer.y_binary.1.signs", "layer.y_binary.2.signs");
  expect_modules_refused("layer.y_binary.2.signs: expected no such plane");
  with_name("layer.y_binary.1.signs", "layer.y_binary.signs");
  expect_modules_refused("layer.y_binary.signs: expected no such plane");
  with_name("layer.y_binary.1.signs", "layer.y_binary.1.other");
  expect_modules_refused("layer.y_binary: factor 1: missing plane signs");
  with_name("layer.x_rotated.1.signs", "layer.x_rotated.0.signs");
  expect_modules_refused("layer.x_rotated.0.signs: expected no such plane");
}

TEST_F(PackedModel, IntegerRowsBesideLayers) {
  const std::vector<TensorToWrite> layers = tensors_;
  const Metadata described = metadata_;
  IntegerRows rows = make_integer_rows(3, 5, 4);
  const std::vector<float> weight = {7, -8, 0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 0, 1};
  round_rows(weight.data(), 0, 3, 1, "test", &rows);
  const auto add = [&](const std::string& module) {
    tensors_ = layers;
    metadata_ = described;
    metadata_["billm_format"] = "3";
    metadata_[module] = describe(rows);
    for (const Plane& plane : rows.planes) {
      tensors_.push_back(
          {module + "." + plane.name, *parse_dtype(plane.dtype), plane.shape, plane.bytes});
    }
    write();
  };
  add("embed");
  {
    const Checkpoint checkpoint(path());
    const PackedModules modules(checkpoint);
    EXPECT_EQ(modules.names().size(), 5u);  // layers alone
    EXPECT_FALSE(modules.has("embed"));
    EXPECT_EQ(modules.integer_rows("layer.q_proj"), nullptr);
    const IntegerRows* const found = modules.integer_rows("embed");
    ASSERT_NE(found, nullptr);
    std::vector<float> expected(15), values(15);
    decode_rows(rows, 0, 3, expected.data());
    decode_rows(*found, 0, 3, values.data());
    EXPECT_EQ(values, expected);
    EXPECT_EQ(modules.size("embed").rows, 3);
    EXPECT_EQ(modules.module_of("embed.codes"), "embed");
    EXPECT_EQ(modules.module_of("embed.scales"), "embed");
    EXPECT_EQ(modules.module_of("norm.weight"), "");
  }
  metadata_["billm_format"] = "2";
  expect_modules_refused("embed: integer rows in a shard of billm_format 2, expected 3");
  add("embed");
  tensors_.pop_back();
  expect_modules_refused("embed: expected the planes codes and scales, got 1 planes");
  add("embed");
  tensors_.back().name = "embed.steps";
  expect_modules_refused("embed.steps: expected no such plane");
  add("embed");
  metadata_["embed"].replace(metadata_["embed"].find("\"cols\":5"), 8, "\"cols\":4");
  expect_modules_refused("embed");
  add("embed");
  metadata_["layer.norm"] = metadata_["embed"];
  expect_modules_refused("layer.norm: expected the planes codes and scales, got 0 planes");
}

TEST_F(PackedModel, ModuleOfTwoShards) {
  static constexpr std::byte kDense[4] = {};
  write_safetensors(path() / kSecond, {{"norm.weight", DType::F16, {2}, kDense}}, metadata_);
  const Checkpoint checkpoint(path());
  expect_bad_input([&] { const PackedModules modules(checkpoint); }, "in another shard too");
}

}  // namespace
}  // namespace billm::test
