// Model directories: one file, shards with an index, and everything that can be wrong with them.
#include "billm/checkpoint/checkpoint.h"

#include "billm/base/file.h"
#include "billm/checkpoint/safetensors.h"
#include "support/environment.h"
#include "testing.h"

namespace billm {
namespace {

constexpr char kConfig[] =
    R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":8,
    "intermediate_size":16,"num_hidden_layers":1,"num_attention_heads":2,"vocab_size":32})";
constexpr char kIndex[] = "model.safetensors.index.json";

class CheckpointTest : public testing::Test {
 protected:
  void SetUp() override { scratch_.write("config.json", kConfig); }

  // A shard with one [2, 3] tensor of halves per name, all bytes `fill`.
  void shard(const std::string& file, const std::vector<std::string>& names, int fill = 1) {
    const std::vector<std::byte> data(12, static_cast<std::byte>(fill));
    std::vector<TensorToWrite> tensors;
    for (const std::string& name : names) tensors.push_back({name, DType::F16, {2, 3}, data});
    write_safetensors(scratch_.path() / file, tensors, {{"file", file}});
  }

  void index(const std::string& weight_map) {
    scratch_.write(kIndex, R"({"metadata":{"total_size":1},"weight_map":)" + weight_map + "}");
  }

  static std::string torch_file(const std::string& name) {
    return read_text_file(test::tests_directory() / "fuzz" / "seeds" / "torch_file" / name);
  }

  Checkpoint open() const { return Checkpoint(scratch_.path()); }

  void expect_refused(std::initializer_list<std::string_view> parts) const {
    expect_bad_input([&] { open(); }, parts);
  }

  ScratchDirectory scratch_;
};

TEST_F(CheckpointTest, OneFile) {
  shard("model.safetensors", {"b", "a"});
  const Checkpoint checkpoint = open();
  EXPECT_EQ(checkpoint.names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(checkpoint.has("a"));
  EXPECT_FALSE(checkpoint.has("c"));
  EXPECT_EQ(checkpoint.tensor("a").dtype, DType::F16);
  EXPECT_EQ(checkpoint.config().hidden_size, 8);
  EXPECT_EQ(checkpoint.directory(), scratch_.path());
  EXPECT_EQ(checkpoint.metadata("a").at("file"), "model.safetensors");
  checkpoint.release("a");
  checkpoint.release("c");
}

TEST_F(CheckpointTest, Shards) {
  shard("model-1.safetensors", {"a"}, 1);
  shard("model-2.safetensors", {"b", "c"}, 2);
  index(R"({"a":"model-1.safetensors","b":"model-2.safetensors","c":"model-2.safetensors"})");
  const Checkpoint checkpoint = open();
  EXPECT_EQ(checkpoint.names().size(), 3u);
  EXPECT_EQ(checkpoint.shards().size(), 2u);
  EXPECT_EQ(checkpoint.tensor("a").data[0], std::byte{1});
  EXPECT_EQ(checkpoint.tensor("c").data[0], std::byte{2});
  EXPECT_EQ(checkpoint.metadata("c").at("file"), "model-2.safetensors");
  EXPECT_EQ(checkpoint.shard("b").path().filename(), "model-2.safetensors");
}

TEST_F(CheckpointTest, OneFileWinsOverAnIndex) {
  shard("model.safetensors", {"a"});
  index(R"({"a":"gone.safetensors"})");
  EXPECT_TRUE(open().has("a"));
}

TEST_F(CheckpointTest, TensorsBesideTheIndexAreServed) {
  shard("m1", {"a", "extra"});
  index(R"({"a":"m1"})");
  EXPECT_TRUE(open().has("extra"));
}

TEST_F(CheckpointTest, MovedCheckpointKeepsItsViews) {
  shard("model.safetensors", {"a"});
  Checkpoint first = open();
  const std::byte* data = first.tensor("a").data.data();
  const Checkpoint second = std::move(first);
  EXPECT_EQ(second.tensor("a").data.data(), data);
}

TEST_F(CheckpointTest, AbsentTensor) {
  shard("model.safetensors", {"a"});
  const Checkpoint checkpoint = open();
  expect_bad_input([&] { checkpoint.tensor("model.norm.weight"); },
                   {scratch_.path().string() + ": model.norm.weight: expected this tensor"});
  expect_bad_input([&] { checkpoint.metadata("x"); }, {"x: expected this tensor"});
}

TEST_F(CheckpointTest, CheckTensor) {
  shard("model.safetensors", {"a"});
  const Checkpoint checkpoint = open();
  const std::vector<int64_t> right = {2, 3}, wrong = {2, 4}, longer = {2, 3, 1};
  EXPECT_EQ(checkpoint.check_tensor("a", right).elements(), 6);
  expect_bad_input([&] { checkpoint.check_tensor("a", wrong); },
                   {"model.safetensors: a: expected [2, 4], got [2, 3]"});
  expect_bad_input([&] { checkpoint.check_tensor("a", longer); }, {"expected [2, 3, 1]"});
}

TEST_F(CheckpointTest, NoDirectoryOrConfig) {
  expect_bad_input([&] { Checkpoint(scratch_.path() / "none"); }, {"none: expected a model dir"});
  expect_bad_input([&] { Checkpoint(scratch_.path() / "config.json"); }, {"got a file"});
  std::filesystem::remove(scratch_.path() / "config.json");
  shard("model.safetensors", {"a"});
  expect_refused({scratch_.path().string() + ": expected a config.json in it, got none"});
}

TEST_F(CheckpointTest, NoTensorFiles) {
  expect_refused({"expected model.safetensors or pytorch_model.bin", "got neither"});
}

// tests/fuzz/seeds/torch_file holds files of torch.save: small.bin has a, b and c.
TEST_F(CheckpointTest, Bin) {
  scratch_.write("pytorch_model.bin", torch_file("small.bin"));
  const Checkpoint checkpoint = open();
  EXPECT_EQ(checkpoint.names(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(checkpoint.tensor("a").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_TRUE(checkpoint.metadata("a").empty());
  checkpoint.release("a");
}

TEST_F(CheckpointTest, BinShards) {
  scratch_.write("p1.bin", torch_file("small.bin"));
  scratch_.write("p2.bin", torch_file("kinds.bin"));
  const std::string index = "pytorch_model.bin.index.json";
  scratch_.write(index, R"({"weight_map":{"a":"p1.bin","b":"p1.bin","p":"p2.bin"}})");
  const Checkpoint checkpoint = open();
  EXPECT_EQ(checkpoint.shards().size(), 2u);
  EXPECT_EQ(checkpoint.shard("p").path().filename(), "p2.bin");
  // The same rules as for safetensors.
  scratch_.write(index, R"({"weight_map":{"a":"p1.bin","p":"p1.bin","u":"p2.bin"}})");
  expect_refused({index, "p: expected it in p1.bin, got p2.bin"});
  scratch_.write(index, R"({"weight_map":{"a":"../p1.bin"}})");
  expect_refused({index, "expected the name of a file beside the index"});
  scratch_.write(index, R"({"weight_map":{"a":"p3.bin"}})");
  expect_refused({index, "expected the shard p3.bin, got no such file"});
  scratch_.write("p3.bin", raw_safetensors("{}", 0));
  expect_refused({"p3.bin: expected a file of torch.save"});
  scratch_.write("p3.bin", torch_file("small.bin"));
  scratch_.write(index, R"({"weight_map":{"a":"p1.bin","b":"p3.bin"}})");
  expect_refused({"p3.bin: a: expected each tensor once, got it in p1.bin too"});
}

TEST_F(CheckpointTest, WhichOfSeveralIsRead) {
  const std::string bin = torch_file("small.bin");
  scratch_.write("p1.bin", bin);
  scratch_.write("pytorch_model.bin.index.json", R"({"weight_map":{"a":"p1.bin"}})");
  EXPECT_EQ(open().shard("a").path().filename(), "p1.bin");
  scratch_.write("pytorch_model.bin", bin);
  EXPECT_EQ(open().shard("a").path().filename(), "pytorch_model.bin");
  shard("m1", {"a"});
  index(R"({"a":"m1"})");
  EXPECT_EQ(open().shard("a").path().filename(), "m1");
  shard("model.safetensors", {"a"});
  EXPECT_EQ(open().shard("a").path().filename(), "model.safetensors");
}

TEST_F(CheckpointTest, DamagedShard) {
  scratch_.write("model.safetensors", "12345678{");
  expect_refused({"model.safetensors: header length"});
}

TEST_F(CheckpointTest, IndexOfWrongShape) {
  scratch_.write(kIndex, "[]");
  expect_refused({"index.json: expected a JSON object"});
  scratch_.write(kIndex, "{}");
  expect_refused({"weight_map: expected an object", "got nothing"});
  for (const char* wrong : {"[]", "{}", "null", "\"a\""}) {
    index(wrong);
    expect_refused({"weight_map: expected an object"});
  }
  index(R"({"a":1})");
  expect_refused({"weight_map: a: expected the name of a file"});
  index(R"({"a":"m","a":"n"})");
  expect_refused({"\"a\" twice"});
}

TEST_F(CheckpointTest, IndexMustStayInItsDirectory) {
  for (const char* name : {"../m1", "/etc/passwd", "sub/m1", "..", ".", "", "m1\\u0000"}) {
    index(std::string(R"({"a":")") + name + "\"}");
    expect_refused({"expected the name of a file beside the index"});
  }
}

TEST_F(CheckpointTest, MissingShard) {
  shard("m1", {"a"});
  index(R"({"a":"m1","b":"m2"})");
  expect_refused({std::string(kIndex) + ": expected the shard m2, got no such file"});
}

TEST_F(CheckpointTest, IndexAndShardsDisagree) {
  shard("m1", {"a"});
  shard("m2", {"b"});
  index(R"({"a":"m1","b":"m1","c":"m2"})");
  expect_refused({"b: expected it in m1, got m2"});
  index(R"({"a":"m1","b":"m2","c":"m2"})");
  expect_refused({"c: expected it in m2, got no such tensor"});
}

TEST_F(CheckpointTest, OneTensorInTwoShards) {
  shard("m1", {"a"});
  shard("m2", {"a", "b"});
  index(R"({"a":"m1","b":"m2"})");
  expect_refused({"m2: a: expected each tensor once, got it in m1 too"});
}

}  // namespace
}  // namespace billm
