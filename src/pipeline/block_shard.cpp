// See block_shard.h.
#include "block_shard.h"

#include <ATen/ops/empty.h>

#include "billm/base/error.h"
#include "billm/pack/packed_checkpoint.h"
#include "result_files.h"

namespace billm {

at::ScalarType scalar_type(DType dtype) {
  switch (dtype) {
    case DType::F16:
      return at::kHalf;
    case DType::BF16:
      return at::kBFloat16;
    case DType::F64:
      return at::kDouble;
    default:
      return at::kFloat;
  }
}

std::vector<std::string> norm_names(const ModelSpec& spec, int64_t block) {
  std::vector<std::string> names;
  if (!spec.norms_have_weights()) return names;
  for (const NormSpec& norm : spec.family->norms) {
    names.push_back(spec.block_prefix(block) + norm.suffix + ".weight");
  }
  return names;
}

NormTypes norm_types(const Checkpoint& checkpoint, const ModelSpec& spec, int64_t block) {
  NormTypes types;
  if (!spec.norms_have_weights()) return types;
  for (const NormSpec& norm : spec.family->norms) {
    const std::string name = spec.block_prefix(block) + norm.suffix + ".weight";
    types[norm.suffix] = scalar_type(checkpoint.tensor(name).dtype);
  }
  return types;
}

BlockShard::BlockShard()
    : metadata_({{"format", "pt"}, {"billm_format", std::to_string(kFirstFormatVersion)}}) {}

const PackedLayer& BlockShard::add(const std::string& module, PackedLayer packed) {
  packed_.push_back(std::make_unique<PackedLayer>(std::move(packed)));
  const PackedLayer& kept = *packed_.back();
  for_each_plane(kept, [&](const std::string& name, const Plane& plane) {
    tensors_.push_back({module + "." + name, *parse_dtype(plane.dtype), plane.shape, plane.bytes});
  });
  metadata_.emplace(module, describe(kept));
  version_ = std::max(version_, format_version(kept));
  metadata_["billm_format"] = std::to_string(version_);
  return kept;
}

void BlockShard::add_norms(const Block& block, const ModelSpec& spec, int64_t index,
                           const Checkpoint& source) {
  for (const auto& [suffix, weight] : block.norms) {
    const std::string name = spec.block_prefix(index) + suffix + ".weight";
    add_norm(name, weight, source.tensor(name));
  }
}

void BlockShard::add_norm(const std::string& name, const at::Tensor& weight,
                          const TensorView& original) {
  norms_.push_back(weight.cpu().to(scalar_type(original.dtype)).contiguous());
  const at::Tensor& stored = norms_.back();
  tensors_.push_back({name,
                      original.dtype,
                      original.shape,
                      {static_cast<const std::byte*>(stored.const_data_ptr()), stored.nbytes()}});
}

WrittenFile BlockShard::write(const std::filesystem::path& directory,
                              const std::string& name) const {
  return write_tensors(directory, name, tensors_, metadata_);
}

Block load_finished_block(const std::filesystem::path& shard, const ModelWeights& original,
                          const ModelSpec& spec, int64_t index, const LayerPlan& plan, int threads,
                          c10::Device device) {
  const SafetensorsFile file(shard);
  Block block = load_block_vectors(original, spec, index, device);
  for (auto& [suffix, weight] : block.norms) {
    const TensorView* tuned = file.find(spec.block_prefix(index) + suffix + ".weight");
    if (tuned == nullptr) continue;
    at::Tensor values = at::empty(tuned->shape, at::kFloat);
    convert_to_float(tuned->dtype, tuned->data,
                     {values.mutable_data_ptr<float>(), static_cast<size_t>(values.numel())});
    weight = values.to(device);
  }
  for (const LinearSpec& linear : spec.family->linears) {
    const std::string module = spec.module(index, linear);
    const std::string where = shard.string() + ": " + module;
    if (stays(plan, module)) {
      block.set_weight(linear.suffix, original.linear(module, threads).to(device));
      continue;
    }
    const auto described = file.metadata().find(module);
    if (described == file.metadata().end()) throw bad_input(where + ": not in this shard");
    const PackedLayer packed =
        open_packed(file.tensors(), module, parse_description(described->second, where), where);
    block.set_weight(linear.suffix, decode_weight(packed, module, threads).to(device));
  }
  return block;
}

}  // namespace billm
