// The shard of a block in a packed model: the planes of its linears and, where they were tuned, its
// norm weights in the dtype of the original.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "billm/checkpoint/checkpoint.h"
#include "billm/checkpoint/safetensors.h"
#include "billm/learn/tune_block.h"
#include "billm/model/block.h"
#include "billm/pack/packed_checkpoint.h"
#include "journal.h"

namespace billm {

// The dtype in ATen of a weight that check_model has accepted.
at::ScalarType scalar_type(DType dtype);

// Names of the weights of the block's norms.
std::vector<std::string> norm_names(const ModelSpec& spec, int64_t block);

// And their dtypes.
NormTypes norm_types(const Checkpoint& checkpoint, const ModelSpec& spec, int64_t block);

class BlockShard {
 public:
  BlockShard();
  // Adds the planes; returns what will be stored, valid as long as this object.
  const PackedLayer& add(const std::string& module, PackedLayer packed);
  // The norm weights of block `index`, in the dtypes of `source`.
  void add_norms(const Block& block, const ModelSpec& spec, int64_t index,
                 const Checkpoint& source);
  WrittenFile write(const std::filesystem::path& directory, const std::string& name) const;

 private:
  void add_norm(const std::string& name, const at::Tensor& weight, const TensorView& original);

  std::vector<std::unique_ptr<PackedLayer>> packed_;
  std::vector<at::Tensor> norms_;  // own the bytes until the shard is written
  std::vector<TensorToWrite> tensors_;
  Metadata metadata_;
  int version_ = kFirstFormatVersion;
};

// Block `index` as a shard that BlockShard wrote has it, the rest of it, and the linears that stay
// as they are, from `original`. Throws Error{kBadInput} if the shard is not this block's.
Block load_finished_block(const std::filesystem::path& shard, const ModelWeights& original,
                          const ModelSpec& spec, int64_t index, const LayerPlan& plan, int threads,
                          c10::Device device);

}  // namespace billm
