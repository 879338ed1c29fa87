// See packed_model_writer.h.
#include "packed_model_writer.h"

#include <set>
#include <utility>

#include "billm/base/file.h"
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
  const int version = result_version(partial, shards);
  files.push_back(write_rest(shards, head.replaced, shard_name(count, count + 1)));
  shards.push_back(files.back().name);
  write_index(partial, shards);
  head.config.at("quantization_config")["format_version"] = version;
  write_file_atomic(partial / "config.json", head.config.dump(2) + "\n");
  std::vector<std::string> names = copy_side_files(source_.checkpoint().directory(), partial);
  names.insert(names.end(), {"config.json", "model.safetensors.index.json"});
  for (const std::string& name : names) files.push_back(written_file(partial, name));
  head.manifest["format_version"] = version;
  write_manifest(partial, head.manifest, files);
  remove_others(partial, files);
  directory_.finish();
  std::filesystem::remove(directory_.out() / kJournalName);  // nothing reads it there
  int64_t bytes = 0;
  for (const WrittenFile& file : files) {
    if (std::filesystem::path(file.name).extension() == ".safetensors") bytes += file.bytes;
  }
  return bytes;
}

// The last shard: every tensor of the source but those that the block shards have, be it in another
// form, as it is or replaced.
WrittenFile PackedModelWriter::write_rest(const std::vector<std::string>& shards,
                                          const std::map<std::string, at::Tensor>& replaced,
                                          const std::string& name) const {
  const Checkpoint& source = source_.checkpoint();
  const ModelSpec& spec = source_.spec();
  const BlockNames blocks = names_in(directory_.partial(), shards);
  // A .bin file lists a tied head beside the embedding whose storage it shares.
  const bool head_twice = spec.head != spec.embed && source.tensor(spec.head).data.data() ==
                                                         source.tensor(spec.embed).data.data();
  std::vector<TensorToWrite> tensors;
  std::vector<at::Tensor> stored;  // own the replaced bytes
  for (const std::string& tensor : source.names()) {
    const bool weight = tensor.ends_with(".weight") &&
                        blocks.modules.count(tensor.substr(0, tensor.rfind('.'))) > 0;
    const bool plane = source_.packed() != nullptr && !source_.packed()->module_of(tensor).empty();
    if (weight || plane || blocks.tensors.count(tensor) > 0) continue;
    if (head_twice && tensor == spec.head) continue;
    const TensorView& view = source.tensor(tensor);
    std::span<const std::byte> bytes = view.data;
    const auto found = replaced.find(tensor);
    if (found != replaced.end()) {
      stored.push_back(found->second.cpu().to(scalar_type(view.dtype)).contiguous());
      bytes = {static_cast<const std::byte*>(stored.back().const_data_ptr()),
               stored.back().nbytes()};
    }
    tensors.push_back({tensor, view.dtype, view.shape, bytes});
  }
  return write_tensors(directory_.partial(), name, std::move(tensors), {{"format", "pt"}});
}

}  // namespace billm
