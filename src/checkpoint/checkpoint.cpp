// A HuggingFace model directory: see include/billm/checkpoint/checkpoint.h.
#include "billm/checkpoint/checkpoint.h"

#include <algorithm>
#include <set>
#include <utility>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/checkpoint/json.h"
#include "billm/checkpoint/safetensors.h"
#include "billm/checkpoint/torch_file.h"
#include "shard_index.h"

namespace billm {
namespace {

namespace fs = std::filesystem;

// The kinds of tensor files, the preferred one first.
struct Kind {
  const char* file;
  const char* index;
  TensorFileParser parse;
};
constexpr Kind kKinds[] = {
    {"model.safetensors", "model.safetensors.index.json", parse_safetensors},
    {"pytorch_model.bin", "pytorch_model.bin.index.json", parse_torch_file},
};

bool path_exists(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

}  // namespace

Checkpoint::Checkpoint(fs::path directory) : directory_(std::move(directory)) {
  std::error_code ignored;
  if (!fs::is_directory(directory_, ignored)) {
    throw bad_input(directory_.string() + ": expected a model directory, got " +
                    (path_exists(directory_) ? "a file" : "nothing there"));
  }
  if (!path_exists(directory_ / "config.json")) {
    throw bad_input(directory_.string() + ": expected a config.json in it, got none",
                    "a model is a HuggingFace directory: config.json, tokenizer, *.safetensors");
  }
  config_ = read_config(directory_ / "config.json");
  for (const Kind& kind : kKinds) {
    if (path_exists(directory_ / kind.file)) {
      add_shard(directory_ / kind.file, kind.parse);
      return;
    }
    if (path_exists(directory_ / kind.index)) {
      open_sharded(directory_ / kind.index, kind.parse);
      return;
    }
  }
  throw bad_input(directory_.string() +
                      ": expected model.safetensors or pytorch_model.bin (or the .index.json of "
                      "one), got neither",
                  "the download may be incomplete");
}

void Checkpoint::add_shard(const fs::path& path, TensorFileParser parse) {
  shards_.emplace_back(path, parse);
  for (const auto& [name, view] : shards_.back().tensors()) {
    const auto [where, added] = shard_of_.emplace(name, shards_.size() - 1);
    if (!added) {
      throw bad_input(path.string() + ": " + printable(name) +
                      ": expected each tensor once, got it in " +
                      shards_[where->second].path().filename().string() + " too");
    }
  }
}

void Checkpoint::open_sharded(const fs::path& index, TensorFileParser parse) {
  const std::string where = index.string();
  const MappedFile file(index);
  const auto file_of = parse_shard_index(
      {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()}, where);
  std::set<std::string> files;
  for (const auto& [tensor, name] : file_of) files.insert(name);
  for (const std::string& name : files) {
    if (!path_exists(directory_ / name)) {
      throw bad_input(where + ": expected the shard " + printable(name) + ", got no such file",
                      "the download may be incomplete");
    }
    add_shard(directory_ / name, parse);
  }
  for (const auto& [tensor, name] : file_of) {
    const auto found = shard_of_.find(tensor);
    const std::string got = found == shard_of_.end()
                                ? "no such tensor in any shard"
                                : shards_[found->second].path().filename().string();
    if (found == shard_of_.end() || got != name) {
      throw bad_input(where + ": " + printable(tensor) + ": expected it in " + printable(name) +
                      ", got " + got);
    }
  }
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> result;
  result.reserve(shard_of_.size());
  for (const auto& [name, shard] : shard_of_) result.push_back(name);
  return result;
}

const TensorFile& Checkpoint::shard(std::string_view name) const {
  const auto found = shard_of_.find(name);
  if (found == shard_of_.end()) {
    throw bad_input(directory_.string() + ": " + printable(name) +
                    ": expected this tensor, got none of that name");
  }
  return shards_[found->second];
}

const TensorView& Checkpoint::tensor(std::string_view name) const {
  return *shard(name).find(name);
}

const TensorView& Checkpoint::check_tensor(std::string_view name,
                                           std::span<const int64_t> shape) const {
  const TensorFile& file = shard(name);
  const TensorView& view = *file.find(name);
  if (!std::equal(view.shape.begin(), view.shape.end(), shape.begin(), shape.end())) {
    throw bad_input(file.path().filename().string() + ": " + printable(name) + ": expected " +
                        shape_text(shape) + ", got " + shape_text(view.shape),
                    "config.json and the tensors of " + directory_.string() + " do not match");
  }
  return view;
}

void Checkpoint::release(std::string_view name) const {
  const auto found = shard_of_.find(name);
  if (found != shard_of_.end()) shards_[found->second].release(name);
}

}  // namespace billm
