// The identity of a checkpoint: it follows what is in the tensors, not how they are sharded, and
// results made with the SHA-256 of before are still recognized.
#include "src/pipeline/model_digest.h"

#include <gtest/gtest.h>

#include <fstream>

#include "billm/base/error.h"
#include "billm/base/json_text.h"
#include "billm/base/sha256.h"
#include "billm/checkpoint/safetensors.h"
#include "support/environment.h"
#include "support/tiny_checkpoint.h"

namespace billm {
namespace {

class ModelDigest : public testing::Test {
 protected:
  void SetUp() override { test::write_tiny_llama(directory_.path() / "model"); }

  std::filesystem::path model() const { return directory_.path() / "model"; }
  // A copy of the model of which half `at` of a tensor is changed.
  std::filesystem::path changed(const std::string& tensor, size_t at) const {
    test::TinyLlama options;
    options.change = [&](const std::string& name, std::vector<int64_t>&,
                         std::vector<uint16_t>& halves) {
      if (name == tensor) halves.at(at) ^= 1;
      return true;
    };
    test::write_tiny_llama(directory_.path() / "changed", options);
    return directory_.path() / "changed";
  }

  test::TemporaryDirectory directory_;
};

constexpr const char* kWeight = "model.layers.1.mlp.down_proj.weight";  // [64, 96]

TEST_F(ModelDigest, SameForAnyThreadsAndShards) {
  const Checkpoint checkpoint(model());
  const std::string expected = model_digest(checkpoint, 1);
  EXPECT_EQ(expected.size(), 5u + 32u);
  EXPECT_TRUE(expected.starts_with("xxh3:"));
  EXPECT_EQ(model_digest(checkpoint, 3), expected);

  const std::filesystem::path sharded = directory_.path() / "sharded";
  std::filesystem::create_directories(sharded);
  std::filesystem::copy_file(model() / "config.json", sharded / "config.json");
  std::vector<TensorToWrite> shards[2];
  nlohmann::json index;
  for (const std::string& name : checkpoint.names()) {
    const TensorView& view = checkpoint.tensor(name);
    const size_t shard = name.size() % 2;
    shards[shard].push_back({name, view.dtype, view.shape, view.data});
    index["weight_map"][name] = shard == 0 ? "a.safetensors" : "b.safetensors";
  }
  write_safetensors(sharded / "a.safetensors", shards[0], {});
  write_safetensors(sharded / "b.safetensors", shards[1], {});
  std::ofstream(sharded / "model.safetensors.index.json") << index;
  EXPECT_EQ(model_digest(Checkpoint(sharded), 2), expected);
  EXPECT_EQ(model_outline(Checkpoint(sharded)), model_outline(checkpoint));
}

TEST_F(ModelDigest, OneBitMakesAnother) {
  const std::string expected = model_digest(Checkpoint(model()), 1);
  EXPECT_NE(model_digest(Checkpoint(changed(kWeight, 64 * 96 - 1)), 1), expected);
}

TEST_F(ModelDigest, OutlineSeesTheStartOfEveryTensor) {
  const std::string expected = model_outline(Checkpoint(model()));
  EXPECT_NE(model_outline(Checkpoint(changed(kWeight, 0))), expected);
  EXPECT_EQ(model_outline(Checkpoint(changed(kWeight, 64 * 96 - 1))), expected);
}

TEST_F(ModelDigest, KnowsTheDigestsOfBefore) {
  const Checkpoint checkpoint(model());
  Sha256 hash;  // as written by versions that used SHA-256
  hash.update(dump_json(checkpoint.config().raw));
  for (const std::string& name : checkpoint.names()) {
    const TensorView& view = checkpoint.tensor(name);
    hash.update(name + " " + dtype_name(view.dtype) + shape_text(view.shape) + " " +
                sha256_hex(view.data) + "\n");
  }
  const std::string before = hash.hex(), now = model_digest(checkpoint, 1);
  EXPECT_TRUE(is_digest_of(before, checkpoint, 2, "manifest.json"));
  EXPECT_TRUE(is_digest_of(now, checkpoint, 2, "manifest.json"));
  const Checkpoint other(changed(kWeight, 7));
  EXPECT_FALSE(is_digest_of(before, other, 2, "manifest.json"));
  EXPECT_FALSE(is_digest_of(now, other, 2, "manifest.json"));
  EXPECT_THROW(is_digest_of("blake3:00", checkpoint, 2, "manifest.json"), Error);
}

}  // namespace
}  // namespace billm
