// See packed_model_writer.h.
#include "packed_model_writer.h"

#include <set>
#include <utility>

#include "billm/base/file.h"
#include "billm/base/json_text.h"
#include "billm/model/model_bits.h"
#include "billm/pack/packed_checkpoint.h"
#include "journal.h"

namespace billm {
namespace {

// Names in the shards of the blocks: tensors, and modules whose weights are packed.
struct BlockNames {
  std::set<std::string> tensors, modules;
};

BlockNames names_in(const std::filesystem::path& directory,
                    const std::vector<std::string>& shards) {
  BlockNames names;
  for (const std::string& shard : shards) {
    const SafetensorsFile file(directory / shard);
    for (const auto& [name, view] : file.tensors()) names.tensors.insert(name);
    for (const auto& [key, value] : file.metadata()) {
      if (is_module_key(key)) names.modules.insert(key);
    }
  }
  return names;
}

}  // namespace

WrittenFile PackedModelWriter::write_block(int64_t index, const BlockShard& shard) const {
  return shard.write(directory_.partial(), shard_name(index, source_.spec().blocks() + 1));
}

int64_t PackedModelWriter::finish(const std::vector<WrittenFile>& blocks,
                                  PackedModelHead head) const {
  const std::filesystem::path& partial = directory_.partial();
  const int64_t count = source_.spec().blocks();
  std::vector<WrittenFile> files = blocks;
  std::vector<std::string> shards;
  for (const WrittenFile& block : blocks) shards.push_back(block.name);
  files.push_back(write_rest(shards, head, shard_name(count, count + 1)));
  shards.push_back(files.back().name);
  const int version = result_version(partial, shards);
  int64_t bytes = 0;
  for (const WrittenFile& file : files) bytes += file.bytes;
  write_index(partial, shards);
  head.config.at("quantization_config")["format_version"] = version;
  if (head_twice()) head.config["tie_word_embeddings"] = true;  // it is written once
  write_file_atomic(partial / "config.json", dump_json(head.config, 2) + "\n");
  std::vector<std::string> names = copy_side_files(source_.checkpoint().directory(), partial);
  names.insert(names.end(), {"config.json", "model.safetensors.index.json"});
  for (const std::string& name : names) files.push_back(written_file(partial, name));
  head.manifest["format_version"] = version;
  head.manifest["file_bits"] = file_bits(bytes, parameters(source_));
  write_manifest(partial, head.manifest, files);
  remove_others(partial, files);
  directory_.finish();
  std::filesystem::remove(directory_.out() / kJournalName);  // nothing reads it there
  return bytes;
}

// Whether the source has its embedding a second time, as the head.
bool PackedModelWriter::head_twice() const {
  return source_.spec().head != source_.spec().embed && head_is_embedding(source_);
}

// The last shard: every tensor of the source but those that the block shards have, be it in another
// form, as it is, replaced or as integer rows.
WrittenFile PackedModelWriter::write_rest(const std::vector<std::string>& shards,
                                          const PackedModelHead& head,
                                          const std::string& name) const {
  const Checkpoint& source = source_.checkpoint();
  const ModelSpec& spec = source_.spec();
  const BlockNames blocks = names_in(directory_.partial(), shards);
  std::vector<TensorToWrite> tensors;
  Metadata metadata = {{"format", "pt"}};
  const auto add_rows = [&](const std::string& module, const IntegerRows& rows) {
    metadata["billm_format"] = std::to_string(kIntegerRowsVersion);
    metadata[module] = describe(rows);
    for (const Plane& plane : rows.planes) {
      tensors.push_back(
          {module + "." + plane.name, *parse_dtype(plane.dtype), plane.shape, plane.bytes});
    }
  };
  for (const auto& [module, rows] : head.integer_rows) add_rows(module, rows);
  if (source_.packed() != nullptr) {
    for (const auto& [module, rows] : source_.packed()->all_integer_rows()) add_rows(module, rows);
  }
  std::vector<at::Tensor> stored;  // own the replaced bytes
  for (const std::string& tensor : source.names()) {
    const std::string module =
        tensor.ends_with(".weight") ? tensor.substr(0, tensor.rfind('.')) : "";
    const bool weight = blocks.modules.count(module) > 0 || head.integer_rows.count(module) > 0;
    const bool plane = source_.packed() != nullptr && !source_.packed()->module_of(tensor).empty();
    if (weight || plane || blocks.tensors.count(tensor) > 0) continue;
    if (tensor == spec.head && head_twice()) continue;
    const TensorView& view = source.tensor(tensor);
    std::span<const std::byte> bytes = view.data;
    const auto found = head.replaced.find(tensor);
    if (found != head.replaced.end()) {
      stored.push_back(found->second.cpu().to(scalar_type(view.dtype)).contiguous());
      bytes = {static_cast<const std::byte*>(stored.back().const_data_ptr()),
               stored.back().nbytes()};
    }
    tensors.push_back({tensor, view.dtype, view.shape, bytes});
  }
  return write_tensors(directory_.partial(), name, std::move(tensors), metadata);
}

}  // namespace billm
