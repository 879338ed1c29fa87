// An opened model directory, dense or packed: what calibrate, eval and the pipeline start from.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "billm/checkpoint/checkpoint.h"
#include "billm/model/family.h"
#include "billm/model/weights.h"
#include "billm/pack/packed_checkpoint.h"

namespace billm {

class Model {
 public:
  // Verifies the manifest of a packed model, then names and shapes of all tensors. Throws
  // Error{kBadInput}.
  Model(const std::filesystem::path& directory, int threads);
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const Checkpoint& checkpoint() const { return checkpoint_; }
  const PackedModules* packed() const { return packed_ ? &*packed_ : nullptr; }
  const ModelSpec& spec() const { return spec_; }
  const ModelWeights& weights() const { return *weights_; }

 private:
  Checkpoint checkpoint_;
  std::optional<PackedModules> packed_;
  ModelSpec spec_;
  std::optional<ModelWeights> weights_;
};

}  // namespace billm
