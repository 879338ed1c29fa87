// What a model takes on disk, in bits: of its packed linears, and of the whole file with everything
// that is in it (embeddings, head, norms, headers). Every report says both.
#pragma once

#include <cstdint>
#include <optional>

#include "billm/model/model.h"

namespace billm {

struct ModelBits {
  int64_t parameters = 0;             // of the whole model; tied ones count once
  int64_t file_bytes = 0;             // of all files with weights
  double file_bits = 0;               // 8 * file_bytes / parameters
  std::optional<double> stored_bits;  // of a packed model's linears, for each of their weights;
                                      // those that are not packed count as they are
};
ModelBits model_bits(const Model& model);
double file_bits(int64_t bytes, int64_t parameters);

// Sum of the sizes of all files with weights of a checkpoint.
int64_t checkpoint_bytes(const Checkpoint& checkpoint);

// Whether the output head is the embedding; a file may list it under both names.
bool head_is_embedding(const Model& model);
// All weights of a model, tied ones once.
int64_t parameters(const Model& model);

}  // namespace billm
