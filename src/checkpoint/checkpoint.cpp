// A HuggingFace model directory: see include/billm/checkpoint/checkpoint.h.
#include "billm/checkpoint/checkpoint.h"

#include <algorithm>
#include <set>
#include <utility>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/checkpoint/json.h"

namespace billm {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxIndexBytes = 100'000'000;

bool path_exists(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// The index must not lead out of the directory: a shard is a plain file name in it.
bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\0", 2)) == std::string::npos;
}

Error no_tensors(const fs::path& directory) {
  for (const char* name : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    if (!path_exists(directory / name)) continue;
    return bad_input(directory.string() + ": expected model.safetensors, got only " + name +
                         " (.bin checkpoints are not supported yet)",
                     "convert it once with transformers: AutoModelForCausalLM"
                     ".from_pretrained(DIR).save_pretrained(NEW, safe_serialization=True)");
  }
  return bad_input(directory.string() +
                       ": expected model.safetensors or model.safetensors.index.json, got neither",
                   "the download may be incomplete");
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
  if (path_exists(directory_ / "model.safetensors")) {
    add_shard(directory_ / "model.safetensors");
  } else if (path_exists(directory_ / "model.safetensors.index.json")) {
    open_sharded(directory_ / "model.safetensors.index.json");
  } else {
    throw no_tensors(directory_);
  }
}

void Checkpoint::add_shard(const fs::path& path) {
  shards_.emplace_back(path);
  for (const auto& [name, view] : shards_.back().tensors()) {
    const auto [where, added] = shard_of_.emplace(name, shards_.size() - 1);
    if (!added) {
      throw bad_input(path.string() + ": " + printable(name) +
                      ": expected each tensor once, got it in " +
                      shards_[where->second].path().filename().string() + " too");
    }
  }
}

void Checkpoint::open_sharded(const fs::path& index_path) {
  const MappedFile file(index_path);
  const std::string where = index_path.string();
  const auto bytes = file.bytes();
  if (bytes.size() > kMaxIndexBytes) {
    throw bad_input(where + ": size: expected at most " + std::to_string(kMaxIndexBytes) +
                    " bytes, got " + std::to_string(bytes.size()));
  }
  const nlohmann::json index =
      parse_json_object({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, where);
  const auto weight_map = index.find("weight_map");
  if (weight_map == index.end() || !weight_map->is_object() || weight_map->empty()) {
    throw bad_input(where + ": weight_map: expected an object of tensor name to file name, got " +
                    (weight_map == index.end() ? "nothing"
                     : weight_map->is_object() ? "an empty one"
                                               : weight_map->type_name()));
  }
  std::set<std::string> files;
  for (const auto& [tensor, value] : weight_map->items()) {
    if (!value.is_string() || !is_plain_file_name(value.get_ref<const std::string&>())) {
      throw bad_input(
          where + ": weight_map: " + printable(tensor) +
          ": expected the name of a file beside the index, got " +
          (value.is_string() ? printable(value.get_ref<const std::string&>()) : value.type_name()));
    }
    files.insert(value.get<std::string>());
  }
  for (const std::string& name : files) {
    if (!path_exists(directory_ / name)) {
      throw bad_input(where + ": expected the shard " + printable(name) + ", got no such file",
                      "the download may be incomplete");
    }
    add_shard(directory_ / name);
  }
  for (const auto& [tensor, value] : weight_map->items()) {
    const auto found = shard_of_.find(tensor);
    const std::string got = found == shard_of_.end()
                                ? "no such tensor in any shard"
                                : shards_[found->second].path().filename().string();
    if (found == shard_of_.end() || got != value.get_ref<const std::string&>()) {
      throw bad_input(where + ": " + printable(tensor) + ": expected it in " +
                      value.get<std::string>() + ", got " + got);
    }
  }
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> result;
  result.reserve(shard_of_.size());
  for (const auto& [name, shard] : shard_of_) result.push_back(name);
  return result;
}

const SafetensorsFile& Checkpoint::shard(std::string_view name) const {
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
  const SafetensorsFile& file = shard(name);
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
