// The identity of a checkpoint: what a result's manifest says it was made from, and what --resume
// and distill compare. It depends on config.json and on every tensor's name, dtype, shape and
// bytes, not on how the tensors are sharded.
#pragma once

#include <string>

#include "billm/checkpoint/checkpoint.h"

namespace billm {

// "xxh3:" and 32 hex digits. Reads all weights, at the speed of the disk or the memory.
std::string model_digest(const Checkpoint& checkpoint, int threads);

// Whether `recorded`, the model_digest of a manifest, is that of this checkpoint. Manifests of
// results made before XXH3 hold a SHA-256 (64 hex digits without a prefix), which is computed then:
// seconds to minutes against quantizing the model again. Throws Error{kBadInput}, starting with
// `where`, for a digest of another kind.
bool is_digest_of(const std::string& recorded, const Checkpoint& checkpoint, int threads,
                  const std::string& where);

// What several processes compare before they work together, in a moment: config.json, and of every
// tensor the name, dtype, shape and the first 4096 bytes.
std::string model_outline(const Checkpoint& checkpoint);

}  // namespace billm
