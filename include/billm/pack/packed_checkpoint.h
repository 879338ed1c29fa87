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
#include "billm/pack/integer_rows.h"
#include "billm/pack/packed_layer.h"

namespace billm {

// The format's oldest version, that of integer rows, and the newest that is known (format_version()
// of a layer).
inline constexpr int kFirstFormatVersion = 1;
inline constexpr int kIntegerRowsVersion = 3;
inline constexpr int kFormatVersion = 3;
// "billm_format" of a shard's metadata; 0 without. Throws Error{kBadInput} starting with `where`
// for a version that is not known.
int shard_version(const Metadata& metadata, const std::string& where);

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
PackedLayer open_packed(const TensorMap& tensors, const std::string& module,
                        const PackedLayer& description, const std::string& where);

// All packed modules of a checkpoint, by module name ("model.layers.0.self_attn.q_proj"): layers,
// and matrices of integer rows ("model.embed_tokens"), which have names and functions of their own.
// Throws Error{kBadInput} for another version or planes that do not fit their description.
class PackedModules {
 public:
  explicit PackedModules(const Checkpoint& checkpoint);  // keeps a reference
  bool has(const std::string& module) const { return entries_.count(module) > 0; }
  const std::set<std::string>& names() const { return names_; }
  // The module, of either kind, of which this tensor is a plane ("m" of "m.signs" or of a product's
  // "m.0.signs"), or "".
  std::string module_of(const std::string& tensor) const;
  // [out, in] of the weight that the module's planes decode to, of either kind.
  struct Size {
    int64_t rows, cols;
  };
  Size size(const std::string& module) const;
  // The layer without planes, as its description has it.
  const PackedLayer& description(const std::string& module) const;
  PackedLayer open(const std::string& module) const;  // checked views
  int64_t bytes(const std::string& module) const;     // of its planes, which are not read
  std::vector<std::string> tensors(const std::string& module) const;  // names of its planes

  // Integer rows: checked views, null where the module is none; all of them; names of the planes.
  const IntegerRows* integer_rows(const std::string& module) const;
  const std::map<std::string, IntegerRows>& all_integer_rows() const { return rows_; }
  static std::vector<std::string> tensors_of_rows(const std::string& module);

 private:
  struct Entry {
    const TensorFile* shard;
    PackedLayer description;  // without planes
  };
  const Entry& entry(const std::string& module) const;
  void add_rows(const TensorFile& shard, const std::string& module, const std::string& description,
                const std::string& where);

  const Checkpoint& checkpoint_;
  std::map<std::string, Entry> entries_;
  std::map<std::string, IntegerRows> rows_;
  std::set<std::string> names_;
};

}  // namespace billm
