// See result_files.h.
#include "result_files.h"

#include <algorithm>
#include <cstdio>
#include <set>

#include "billm/base/file.h"
#include "billm/base/json_text.h"
#include "billm/base/sha256.h"
#include "billm/pack/packed_checkpoint.h"
#include "billm/quantize/methods.h"
#include "billm/quantize/settings.h"

namespace billm {
namespace fs = std::filesystem;

namespace {

constexpr const char* kSideFiles[] = {"tokenizer.json",
                                      "tokenizer_config.json",
                                      "tokenizer.model",
                                      "vocab.json",
                                      "merges.txt",
                                      "added_tokens.json",
                                      "special_tokens_map.json",
                                      "chat_template.jinja",
                                      "generation_config.json",
                                      "LICENSE",
                                      "LICENSE.txt",
                                      "NOTICE"};

}  // namespace

std::string shard_name(int64_t index, int64_t count) {
  char text[64];
  std::snprintf(text, sizeof(text), "model-%05ld-of-%05ld.safetensors",
                static_cast<long>(index + 1), static_cast<long>(count));
  return text;
}

std::vector<std::string> copy_side_files(const fs::path& from, const fs::path& to) {
  std::vector<std::string> copied;
  for (const char* name : kSideFiles) {
    if (!fs::is_regular_file(from / name)) continue;
    write_file_atomic(to / name, MappedFile(from / name).bytes());
    copied.emplace_back(name);
  }
  return copied;
}

int result_version(const fs::path& directory, const std::vector<std::string>& shards) {
  int version = kFirstFormatVersion;
  for (const std::string& shard : shards) {
    const SafetensorsFile file(directory / shard);
    version = std::max(version, shard_version(file.metadata(), file.path().string()));
  }
  return version;
}

nlohmann::ordered_json packed_config(const Checkpoint& source, const MethodConfig& method,
                                     const MeanBits& bits, bool head_quantized,
                                     const std::vector<std::string>& as_they_are) {
  nlohmann::ordered_json config =
      parse_ordered_json(read_text_file(source.directory() / "config.json"));
  nlohmann::ordered_json others = nlohmann::ordered_json::array();
  if (!source.config().tie_word_embeddings && !head_quantized) others.push_back("lm_head");
  if (source.config().embed_width != source.config().hidden_size) {
    for (const char* module : {"project_in", "project_out"}) others.push_back(module);
  }
  for (const std::string& module : as_they_are) others.push_back(module);
  config["quantization_config"] = {
      {"quant_method", "billm"},
      {"format_version", kFirstFormatVersion},
      {"method", method.method},
      {"block_size", uses(find_method(method.method), "block_size")
                         ? nlohmann::ordered_json(method.block_size)
                         : nlohmann::ordered_json(nullptr)},
      {"nm", method.nm.active() ? nlohmann::ordered_json(method.nm.text())
                                : nlohmann::ordered_json(nullptr)},
      {"nominal_bits", bits.nominal},
      {"stored_bits", bits.stored},
      {"modules_not_quantized", others}};
  return config;
}

void write_index(const fs::path& directory, const std::vector<std::string>& shards) {
  nlohmann::json map = nlohmann::json::object();
  int64_t total = 0;
  for (const std::string& shard : shards) {
    const SafetensorsFile file(directory / shard);
    for (const auto& [name, tensor] : file.tensors()) {
      map[name] = shard;
      total += static_cast<int64_t>(tensor.data.size());
    }
  }
  const nlohmann::json index = {{"metadata", {{"total_size", total}}}, {"weight_map", map}};
  write_file_atomic(directory / "model.safetensors.index.json", dump_json(index, 2) + "\n");
}

WrittenFile write_tensors(const fs::path& directory, const std::string& name,
                          std::vector<TensorToWrite> tensors, const Metadata& metadata,
                          FileSync sync) {
  WrittenFile file{name, write_safetensors(directory / name, std::move(tensors), metadata, sync),
                   0};
  file.bytes = static_cast<int64_t>(fs::file_size(directory / name));
  return file;
}

WrittenFile written_file(const fs::path& directory, const std::string& name) {
  const MappedFile file(directory / name);
  return {name, sha256_hex(file.bytes()), static_cast<int64_t>(file.bytes().size())};
}

void write_manifest(const fs::path& directory, const nlohmann::ordered_json& head,
                    const std::vector<WrittenFile>& files) {
  nlohmann::ordered_json manifest = head;
  std::vector<WrittenFile> sorted = files;
  std::sort(sorted.begin(), sorted.end(),
            [](const WrittenFile& x, const WrittenFile& y) { return x.name < y.name; });
  for (const WrittenFile& file : sorted) {
    manifest["files"][file.name] = {{"bytes", file.bytes}, {"sha256", file.sha256}};
  }
  const std::string text = dump_json(manifest, 1) + "\n";
  write_file_atomic(directory / "manifest.json", text);
  write_file_atomic(directory / "manifest.sha256", sha256_hex(text) + "  manifest.json\n");
}

void remove_others(const fs::path& directory, const std::vector<WrittenFile>& files) {
  std::set<std::string> keep = {"manifest.json", "manifest.sha256", kJournalName};
  for (const WrittenFile& file : files) keep.insert(file.name);
  std::vector<fs::path> others;
  for (const auto& entry : fs::directory_iterator(directory)) {
    if (keep.count(entry.path().filename()) == 0) others.push_back(entry.path());
  }
  for (const fs::path& other : others) fs::remove_all(other);
}

}  // namespace billm
