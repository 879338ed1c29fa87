// The one writer of results: a dense source and a packed one, tensors that are replaced, what a
// killed run has left.
#include "src/pipeline/packed_model_writer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "billm/base/file.h"
#include "billm/base/json_text.h"
#include "billm/model/runtime.h"
#include "billm/quantize/methods.h"
#include "src/pipeline/journal.h"
#include "support/environment.h"
#include "support/tiny_checkpoint.h"

namespace billm {
namespace {

namespace fs = std::filesystem;

class PackedModelWriterTest : public testing::Test {
 protected:
  void SetUp() override {
    init_torch();
    test::TinyLlama options;
    options.config_changes = {{"attention_bias", true}};
    for (const char* block : {"0", "1"}) {
      for (const auto& [linear, size] : {std::pair("q", 64), {"k", 32}, {"v", 32}, {"o", 64}}) {
        options
            .vectors["model.layers." + std::string(block) + ".self_attn." + linear + "_proj.bias"] =
            size;
      }
    }
    test::write_tiny_llama(directory_.path() / "model", options);
    std::ofstream(directory_.path() / "model/tokenizer.json") << "{}";
  }

  // Writes `source` with all linears quantized by rtn, the norms of block 1 as tuned if `norms`.
  // Leaves what a killed run might have left.
  int64_t write(const Model& source, const std::string& out, bool norms,
                std::map<std::string, at::Tensor> replaced) const {
    OutputDirectory directory(directory_.path() / out, OutputDirectory::Existing::kRefuse, {});
    const PackedModelWriter writer(source, directory);
    const ModelSpec& spec = source.spec();
    std::vector<WrittenFile> shards(static_cast<size_t>(spec.blocks()));
    for (int64_t b = spec.blocks() - 1; b >= 0; --b) {  // any order
      Block block = load_block(source.weights(), spec, b, 1, c10::Device(c10::kCPU));
      BlockShard shard;
      for (const LinearSpec& linear : spec.family->linears) {
        const at::Tensor& weight = block.weight(linear.suffix);
        Hessian hessian;
        hessian.width = weight.size(1);
        shard.add(spec.module(b, linear),
                  pack(find_method("rtn").quantize(
                      {weight.const_data_ptr<float>(), weight.size(0), weight.size(1)}, hessian,
                      MethodConfig("rtn"), {})));
      }
      if (norms && b == 1) {
        for (auto& [suffix, norm] : block.norms) norm = norm.add(1);
        shard.add_norms(block, spec, b, source.checkpoint());
      }
      shards[static_cast<size_t>(b)] = writer.write_block(b, shard);
    }
    for (const char* left : {"hidden-1-0-0.safetensors", "model.safetensors.tmp", kJournalName}) {
      std::ofstream(directory.partial() / left) << "left";
    }
    PackedModelHead head;
    head.config =
        parse_ordered_json(read_text_file(source.checkpoint().directory() / "config.json"));
    head.config["quantization_config"]["quant_method"] = "billm";
    head.manifest = {{"format_version", 0}, {"settings", {{"method", "rtn"}}}};
    head.replaced = std::move(replaced);
    return writer.finish(shards, std::move(head));
  }

  static std::set<std::string> files(const fs::path& directory) {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory)) {
      names.insert(entry.path().filename());
    }
    return names;
  }

  test::TemporaryDirectory directory_;
};

const std::set<std::string> kFiles = {"config.json",
                                      "manifest.json",
                                      "manifest.sha256",
                                      "model-00001-of-00003.safetensors",
                                      "model-00002-of-00003.safetensors",
                                      "model-00003-of-00003.safetensors",
                                      "model.safetensors.index.json",
                                      "tokenizer.json"};

TEST_F(PackedModelWriterTest, FromDenseAndFromPacked) {
  const Model dense(directory_.path() / "model", 1);
  const int64_t bytes = write(dense, "packed", false, {});
  EXPECT_EQ(files(directory_.path()), (std::set<std::string>{"model", "packed"}));
  EXPECT_EQ(files(directory_.path() / "packed"), kFiles);
  const Model packed(directory_.path() / "packed", 1);  // verifies the manifest
  ASSERT_NE(packed.packed(), nullptr);
  EXPECT_EQ(packed.packed()->names().size(), 14u);
  const std::vector<std::string> names = packed.checkpoint().names();
  const std::set<std::string> all(names.begin(), names.end());
  EXPECT_EQ(all.count("model.layers.0.self_attn.q_proj.bias"), 1u);
  EXPECT_EQ(all.count("model.layers.0.self_attn.q_proj.weight"), 0u);
  int64_t sum = 0;
  for (const TensorFile& shard : packed.checkpoint().shards()) {
    sum += static_cast<int64_t>(fs::file_size(shard.path()));
  }
  EXPECT_EQ(bytes, sum);

  const at::Tensor norm = load_final_layers(dense.weights(), dense.spec(), c10::kCPU).norm.add(1);
  write(packed, "again", true, {{"model.norm.weight", norm}});
  EXPECT_EQ(files(directory_.path() / "again"), kFiles);
  const Model again(directory_.path() / "again", 1);
  EXPECT_EQ(again.checkpoint().names(), names);
  EXPECT_EQ(again.checkpoint().tensor("model.norm.weight").dtype, DType::F16);
  EXPECT_TRUE(load_final_layers(again.weights(), again.spec(), c10::kCPU)
                  .norm.equal(norm.to(at::kHalf).to(at::kFloat)));
  for (int64_t b = 0; b < 2; ++b) {
    const Block before = load_block_vectors(packed.weights(), packed.spec(), b, c10::kCPU);
    const Block after = load_block_vectors(again.weights(), again.spec(), b, c10::kCPU);
    for (const auto& [suffix, weight] : before.norms) {
      const at::Tensor expected = b == 1 ? weight.add(1).to(at::kHalf).to(at::kFloat) : weight;
      EXPECT_TRUE(after.norms.at(suffix).equal(expected)) << b << " " << suffix;
    }
  }
}

TEST_F(PackedModelWriterTest, SetsTheFormatVersion) {
  const Model dense(directory_.path() / "model", 1);
  write(dense, "packed", false, {});
  const auto manifest =
      parse_ordered_json(read_text_file(directory_.path() / "packed/manifest.json"));
  EXPECT_EQ(manifest.begin().key(), "format_version");
  EXPECT_EQ(manifest.at("format_version"), 1);
  EXPECT_EQ(manifest.at("files").size(), 6u);
  const auto config = parse_ordered_json(read_text_file(directory_.path() / "packed/config.json"));
  EXPECT_EQ(config.at("quantization_config").at("format_version"), 1);
}

}  // namespace
}  // namespace billm
