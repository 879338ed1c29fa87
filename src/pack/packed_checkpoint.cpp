// Packed model directories: see include/billm/pack/packed_checkpoint.h and docs/format.md.
#include "billm/pack/packed_checkpoint.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/base/parallel.h"
#include "billm/base/sha256.h"
#include "billm/checkpoint/json.h"

namespace billm {
namespace {

constexpr std::string_view kFormatKey = "billm_format";
constexpr const char* kOtherVersion = "the model was written by another version of billm";

std::string known_versions() {
  return std::to_string(kFirstFormatVersion) + " to " + std::to_string(kFormatVersion);
}

void check_version(const nlohmann::json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number_integer() || *found < kFirstFormatVersion ||
      *found > kFormatVersion) {
    throw bad_input(where + ": " + key + ": expected " + known_versions() + ", got " +
                        (found == object.end() ? "nothing" : printable(found->dump())),
                    kOtherVersion);
  }
}

// Calls body(name, tensor) for the planes of a module.
template <typename Body>
void for_each_tensor(const TensorMap& tensors, const std::string& module, const Body& body) {
  const std::string prefix = module + ".";
  for (auto it = tensors.lower_bound(prefix);
       it != tensors.end() && it->first.compare(0, prefix.size(), prefix) == 0; ++it) {
    body(it->first.substr(prefix.size()), it->second);
  }
}

}  // namespace

bool is_packed_model(const Checkpoint& checkpoint) {
  const nlohmann::json& config = checkpoint.config().quantization_config;
  if (!config.is_object()) return false;
  const auto method = config.find("quant_method");
  if (method == config.end() || *method != "billm") return false;
  check_version(config, "format_version",
                (checkpoint.directory() / "config.json").string() + ": quantization_config");
  return true;
}

std::vector<ManifestFile> parse_manifest(std::string_view text, const std::string& where) {
  const nlohmann::json manifest = parse_json_object(text, where);
  check_version(manifest, "format_version", where);
  const auto files = manifest.find("files");
  if (files == manifest.end() || !files->is_object()) {
    throw bad_input(where + ": files: expected an object");
  }
  std::vector<ManifestFile> listed;
  for (const auto& [name, entry] : files->items()) {
    const bool ok = name.find('/') == std::string::npos && name == printable(name) &&
                    entry.is_object() && entry.contains("sha256") && entry["sha256"].is_string() &&
                    entry.contains("bytes") && entry["bytes"].is_number_integer();
    if (!ok) throw bad_input(where + ": files." + printable(name) + ": expected sha256 and bytes");
    listed.push_back({name, entry["sha256"], entry["bytes"]});
  }
  return listed;
}

void verify_manifest(const std::filesystem::path& directory, int threads) {
  const std::filesystem::path path = directory / "manifest.json";
  const std::string text = read_text_file(path);
  // The manifest's own checksum, in the form that sha256sum -c reads.
  const std::string own = read_text_file(directory / "manifest.sha256");
  if (own != sha256_hex(text) + "  manifest.json\n") {
    throw bad_input(path.string() + ": does not match manifest.sha256",
                    "the packed model is damaged: copy or quantize it again");
  }
  const std::vector<ManifestFile> listed = parse_manifest(text, path.string());
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const std::string name = entry.path().filename();
    if (entry.path().extension() != ".safetensors") continue;
    if (std::none_of(listed.begin(), listed.end(),
                     [&](const ManifestFile& file) { return file.name == name; })) {
      throw bad_input(entry.path().string() + ": not listed in manifest.json");
    }
  }
  parallel_for(static_cast<int64_t>(listed.size()), threads, [&](int64_t i) {
    const ManifestFile& file = listed[i];
    const MappedFile mapped(directory / file.name);
    const auto size = static_cast<int64_t>(mapped.bytes().size());
    if (size != file.bytes) {
      throw bad_input(mapped.path().string() + ": expected " + std::to_string(file.bytes) +
                          " bytes (manifest.json), got " + std::to_string(size),
                      "the packed model is damaged: copy or quantize it again");
    }
    if (sha256_hex(mapped.bytes()) != file.sha256) {
      throw bad_input(mapped.path().string() + ": checksum does not match manifest.json",
                      "the packed model is damaged: copy or quantize it again");
    }
  });
}

PackedModules::PackedModules(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {
  for (const TensorFile& shard : checkpoint.shards()) {
    const Metadata& metadata = shard.metadata();
    const std::string where = shard.path().string();
    const int version = shard_version(metadata, where);
    if (version == 0) continue;
    for (const auto& [key, text] : metadata) {
      if (!is_module_key(key)) continue;
      const std::string module = where + ": " + printable(key);
      if (describes_integer_rows(text)) {
        if (version < kIntegerRowsVersion) {
          throw bad_input(module + ": integer rows in a shard of billm_format " +
                              std::to_string(version) + ", expected " +
                              std::to_string(kIntegerRowsVersion),
                          kOtherVersion);
        }
        add_rows(shard, key, text, module);
        continue;
      }
      Entry entry{&shard, parse_description(text, module)};
      if (format_version(entry.description) > version) {
        throw bad_input(module + ": a layer of layout " + entry.description.layout() +
                            " in a shard of billm_format " + std::to_string(version) +
                            ", expected " + std::to_string(format_version(entry.description)),
                        kOtherVersion);
      }
      if (rows_.count(key) > 0 || !names_.insert(key).second) {
        throw bad_input(module + ": described in another shard too");
      }
      entries_.emplace(key, std::move(entry));
      if (bytes(key) == 0) {
        throw bad_input(module + ": described, but none of its planes is in this shard",
                        "the packed model is damaged: copy or quantize it again");
      }
    }
  }
  if (entries_.empty()) {
    throw bad_input(checkpoint.directory().string() + ": no packed module in any shard",
                    kOtherVersion);
  }
}

void PackedModules::add_rows(const TensorFile& shard, const std::string& module,
                             const std::string& description, const std::string& where) {
  IntegerRows rows = parse_integer_rows(description, where);
  for_each_tensor(shard.tensors(), module, [&](const std::string& name, const TensorView& plane) {
    rows.planes.push_back({name, dtype_name(plane.dtype), plane.shape, plane.data});
  });
  check_integer_rows(rows, where);
  if (names_.count(module) > 0 || !rows_.emplace(module, std::move(rows)).second) {
    throw bad_input(where + ": described in another shard too");
  }
}

const IntegerRows* PackedModules::integer_rows(const std::string& module) const {
  const auto found = rows_.find(module);
  return found == rows_.end() ? nullptr : &found->second;
}

std::vector<std::string> PackedModules::tensors_of_rows(const std::string& module) {
  return {module + ".codes", module + ".scales"};
}

const PackedModules::Entry& PackedModules::entry(const std::string& module) const {
  const auto found = entries_.find(module);
  if (found == entries_.end()) {
    throw bad_input(checkpoint_.directory().string() + ": " + module + ": not a packed module");
  }
  return found->second;
}

const PackedLayer& PackedModules::description(const std::string& module) const {
  return entry(module).description;
}

PackedModules::Size PackedModules::size(const std::string& module) const {
  if (const IntegerRows* rows = integer_rows(module)) return {rows->rows, rows->cols};
  const PackedLayer& layer = entry(module).description;
  return {layer.rows(), layer.cols()};
}

std::string PackedModules::module_of(const std::string& tensor) const {
  // A bias is stored beside the planes, as it is.
  if (tensor.ends_with(".bias")) return "";
  for (size_t dot = tensor.rfind('.'); dot != std::string::npos && dot > 0;
       dot = tensor.rfind('.', dot - 1)) {
    std::string module = tensor.substr(0, dot);
    if (has(module) || rows_.count(module) > 0) return module;
  }
  return "";
}

PackedLayer PackedModules::open(const std::string& module) const {
  const Entry& found = entry(module);
  return open_packed(found.shard->tensors(), module, found.description,
                     found.shard->path().string() + ": " + module);
}

int shard_version(const Metadata& metadata, const std::string& where) {
  const auto found = metadata.find(std::string(kFormatKey));
  if (found == metadata.end()) return 0;
  for (int version = kFirstFormatVersion; version <= kFormatVersion; ++version) {
    if (found->second == std::to_string(version)) return version;
  }
  throw bad_input(
      where + ": billm_format: expected " + known_versions() + ", got " + printable(found->second),
      kOtherVersion);
}

bool is_module_key(std::string_view key) { return key != kFormatKey && key != "format"; }

std::vector<std::string> PackedModules::tensors(const std::string& module) const {
  std::vector<std::string> names;
  for_each_tensor(
      entry(module).shard->tensors(), module,
      [&](const std::string& name, const TensorView&) { names.push_back(module + "." + name); });
  return names;
}

int64_t PackedModules::bytes(const std::string& module) const {
  int64_t sum = 0;
  for_each_tensor(entry(module).shard->tensors(), module,
                  [&](const std::string&, const TensorView& plane) {
                    sum += static_cast<int64_t>(plane.data.size());
                  });
  return sum;
}

PackedLayer open_packed(const TensorMap& tensors, const std::string& module,
                        const PackedLayer& description, const std::string& where) {
  PackedLayer packed = without_planes(description);
  // A product's planes are named after their factor.
  std::map<std::string, std::vector<Plane>*> planes_of;
  for (size_t i = 0; i < packed.factors.size(); ++i) {
    std::vector<Plane>* planes = stored_planes(packed.factors[i]);
    if (planes != nullptr) planes_of[packed.product() ? std::to_string(i) : ""] = planes;
  }
  for_each_tensor(tensors, module, [&](const std::string& name, const TensorView& plane) {
    const size_t dot = packed.product() ? name.find('.') : std::string::npos;
    const auto found = planes_of.find(dot == std::string::npos ? "" : name.substr(0, dot));
    if (found == planes_of.end()) {
      throw bad_input(where + "." + printable(name) + ": expected no such plane in this module");
    }
    found->second->push_back({dot == std::string::npos ? name : name.substr(dot + 1),
                              dtype_name(plane.dtype), plane.shape, plane.data});
  });
  check_packed(packed, where);
  return packed;
}

}  // namespace billm
