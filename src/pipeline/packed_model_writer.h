// The one writer of results (docs/format.md): the shards of the blocks as they come, then every
// other file, then the directory under its name. For every command that makes a packed model:
// quantize, distill.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "billm/model/model.h"
#include "billm/pack/integer_rows.h"
#include "block_shard.h"
#include "output_directory.h"
#include "result_files.h"

namespace billm {

// What a command knows of a result besides its weights.
struct PackedModelHead {
  nlohmann::ordered_json config;    // config.json with a quantization_config
  nlohmann::ordered_json manifest;  // manifest.json but for the files
  // Tensors outside the blocks that have changed; stored in the dtype that they have in the source.
  std::map<std::string, at::Tensor> replaced;
  // Matrices outside the blocks, by module, to be stored so. What the source has so is kept.
  std::map<std::string, IntegerRows> integer_rows;
};

class PackedModelWriter {
 public:
  // Keeps the references. `source`: the model, dense or packed, from which the result has what is
  // not in its blocks.
  PackedModelWriter(const Model& source, OutputDirectory& directory)
      : source_(source), directory_(directory) {}

  // The shard of block `index`; any order. A journal that is to go on from it records it.
  WrittenFile write_block(int64_t index, const BlockShard& shard) const;

  // The result with these blocks, in order: writes the rest, sets format version and file bits in
  // `head`, removes what killed runs have left, and gives the directory its name. A journal stays
  // until then, so that a run killed on the way is finished by --resume without any block done
  // again. Returns the size of the safetensors files.
  int64_t finish(const std::vector<WrittenFile>& blocks, PackedModelHead head) const;

 private:
  bool head_twice() const;
  WrittenFile write_rest(const std::vector<std::string>& shards, const PackedModelHead& head,
                         const std::string& name) const;

  const Model& source_;
  OutputDirectory& directory_;
};

}  // namespace billm
