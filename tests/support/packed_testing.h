// A model of which one linear is packed, or some are, written without the pipeline: the others stay
// dense.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "billm/base/json_text.h"
#include "billm/base/sha256.h"
#include "billm/checkpoint/checkpoint.h"
#include "billm/checkpoint/safetensors.h"
#include "billm/codes/region_codes.h"
#include "billm/pack/packed_layer.h"

namespace billm {

inline constexpr const char* kModule = "model.layers.1.mlp.up_proj";

// Codes without meaning but of every region: [rows, cols].
inline RegionCodes some_codes(int64_t rows, int64_t cols,
                              OffsetKind offset_kind = OffsetKind::kNone) {
  RegionFormat shape;
  shape.rows = rows;
  shape.cols = cols;
  shape.block_size = 32;
  shape.salient_classes = 0;
  shape.scale_format = ScaleFormat::kF16;
  shape.offset_kind = offset_kind;
  RegionCodes linear = make_region_codes(shape);
  for (size_t i = 0; i < linear.region.size(); ++i) {
    linear.region[i] = static_cast<uint8_t>(1 + i * i % 7 % 2);
    linear.code[i] = static_cast<uint8_t>(i * i * i % 11 % 2);
  }
  for (size_t i = 0; i < linear.scale.size(); ++i) {
    linear.scale[i] = 0.125f + 0.03125f * static_cast<float>(i % 5);
  }
  check_codes(linear);
  return linear;
}

// Copies the model in `dense` to `out` with the weights of `modules` replaced by `replacement`.
inline void replace_weight(const std::filesystem::path& dense, const std::filesystem::path& out,
                           std::vector<TensorToWrite> replacement, const Metadata& metadata,
                           const nlohmann::json& config_changes,
                           const std::set<std::string>& modules = {kModule}) {
  std::filesystem::create_directories(out);
  const Checkpoint checkpoint(dense);
  std::vector<TensorToWrite> tensors = std::move(replacement);
  for (const std::string& name : checkpoint.names()) {
    if (name.ends_with(".weight") && modules.contains(name.substr(0, name.size() - 7))) continue;
    const TensorView& view = checkpoint.tensor(name);
    tensors.push_back({name, view.dtype, view.shape, view.data});
  }
  write_safetensors(out / "model.safetensors", tensors, metadata);
  nlohmann::json config = checkpoint.config().raw;
  config.merge_patch(config_changes);
  std::ofstream(out / "config.json") << dump_json(config);
}

inline void write_manifest(const std::filesystem::path& directory) {
  nlohmann::json manifest = {{"format_version", 1}};
  for (const char* name : {"config.json", "model.safetensors"}) {
    manifest["files"][name] = {{"sha256", sha256_file(directory / name)},
                               {"bytes", std::filesystem::file_size(directory / name)}};
  }
  const std::string text = dump_json(manifest);
  std::ofstream(directory / "manifest.json") << text;
  std::ofstream(directory / "manifest.sha256") << sha256_hex(text) << "  manifest.json\n";
}

using PackedByModule = std::map<std::string, PackedLayer>;

inline void write_packed(const std::filesystem::path& dense, const std::filesystem::path& out,
                         const PackedByModule& layers) {
  std::vector<TensorToWrite> planes;
  std::set<std::string> modules;
  Metadata metadata = {{"format", "pt"}};
  int version = 1;
  for (const auto& [module, packed] : layers) {
    for_each_plane(packed, [&, &module = module](const std::string& name, const Plane& plane) {
      planes.push_back({module + "." + name, *parse_dtype(plane.dtype), plane.shape, plane.bytes});
    });
    modules.insert(module);
    metadata[module] = describe(packed);
    version = std::max(version, format_version(packed));
  }
  metadata["billm_format"] = std::to_string(version);
  replace_weight(
      dense, out, std::move(planes), metadata,
      {{"quantization_config", {{"quant_method", "billm"}, {"format_version", version}}}}, modules);
  write_manifest(out);
}

inline void write_packed(const std::filesystem::path& dense, const std::filesystem::path& out,
                         const LayerCodes& linear) {
  PackedByModule layers;
  layers[kModule] = pack(linear);
  write_packed(dense, out, layers);
}

}  // namespace billm
