// A packed model directory opened for reading: which modules are packed, and their planes as views
// into the mapped shards. Verifies the manifest's checksums by default.
#pragma once

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "billm/checkpoint/checkpoint.h"
#include "billm/pack/packed_linear.h"

namespace billm {

inline constexpr int kFormatVersion = 1;

// True if the directory's config.json has a quantization_config with quant_method "billm".
bool is_packed_model(const Checkpoint& checkpoint);

// Checks manifest.json: format version, that every listed file exists with its size and SHA-256,
// and that no shard is missing from the list. Throws Error{kBadInput}: "FILE: checksum does not
// match".
void verify_manifest(const std::filesystem::path& directory, int threads);

// The part of manifest.json that lists files.
struct ManifestFile {
  std::string name;  // beside the manifest, no path
  std::string sha256;
  int64_t bytes;
};
// Throws Error{kBadInput} starting with `where`; the files themselves are not looked at.
std::vector<ManifestFile> parse_manifest(std::string_view text, const std::string& where);

// Whether a key of a shard's metadata is the name of a packed module, with its description as
// value.
bool is_module_key(std::string_view key);

// The planes of `module` among the tensors of its shard, checked against its description (see
// parse_description). Views of the tensors' bytes. Throws Error{kBadInput} starting with `where`.
PackedLinear open_packed(const TensorMap& tensors, const std::string& module,
                         const PackedLinear& description, const std::string& where);

// All packed modules of a checkpoint, by module name ("model.layers.0.self_attn.q_proj").
// Throws Error{kBadInput} for another version or planes that do not fit their description.
class PackedModules {
 public:
  explicit PackedModules(const Checkpoint& checkpoint);  // keeps a reference
  bool has(const std::string& module) const { return entries_.count(module) > 0; }
  const std::set<std::string>& names() const { return names_; }
  // Shape [out, in] of the weight that the module's planes decode to.
  const RegionFormat& shape(const std::string& module) const;
  PackedLinear open(const std::string& module) const;  // checked views
  int64_t bytes(const std::string& module) const;      // of its planes, which are not read

 private:
  struct Entry {
    const TensorFile* shard;
    PackedLinear description;  // without planes
  };
  const Entry& entry(const std::string& module) const;

  const Checkpoint& checkpoint_;
  std::map<std::string, Entry> entries_;
  std::set<std::string> names_;
};

}  // namespace billm
