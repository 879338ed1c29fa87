// Checkpoint: the tensors and the configuration of a HuggingFace model directory, read-only and by
// name. Knows files and shards, no architecture.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "billm/checkpoint/config.h"
#include "billm/checkpoint/tensor_file.h"

namespace billm {

class Checkpoint {
 public:
  // Opens config.json and the first of these that is there: model.safetensors,
  // model.safetensors.index.json with every shard it names, pytorch_model.bin,
  // pytorch_model.bin.index.json with its shards. All headers are checked here; no tensor is read.
  // A tensor that the index does not list is served too, as HuggingFace's loader does. Throws
  // Error{kBadInput}: a file is missing or wrong, the index disagrees with a shard, or two shards
  // hold one name.
  explicit Checkpoint(std::filesystem::path directory);

  const std::filesystem::path& directory() const { return directory_; }
  const ModelConfig& config() const { return config_; }
  const std::vector<TensorFile>& shards() const { return shards_; }  // sorted by file name

  bool has(std::string_view name) const { return shard_of_.find(name) != shard_of_.end(); }
  std::vector<std::string> names() const;  // sorted

  // Views live as long as the Checkpoint. Throw Error{kBadInput} naming directory and tensor if it
  // is absent.
  const TensorView& tensor(std::string_view name) const;
  const TensorFile& shard(std::string_view name) const;
  const Metadata& metadata(std::string_view name) const { return shard(name).metadata(); }

  // tensor(), with its shape checked. Throws Error{kBadInput}:
  // "model-00002.safetensors: model.norm.weight: expected [4096], got [4095]".
  const TensorView& check_tensor(std::string_view name, std::span<const int64_t> shape) const;

  // The pages of this tensor are not needed now (keeps resident memory low). Absent: no effect.
  void release(std::string_view name) const;

 private:
  void open_sharded(const std::filesystem::path& index, TensorFileParser parse);
  void add_shard(const std::filesystem::path& path, TensorFileParser parse);

  std::filesystem::path directory_;
  ModelConfig config_;
  std::vector<TensorFile> shards_;
  std::map<std::string, size_t, std::less<>> shard_of_;  // tensor -> index into shards_
};

}  // namespace billm
