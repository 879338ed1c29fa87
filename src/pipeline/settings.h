// The settings of a run: what the manifest records and --resume compares.
#pragma once

#include <nlohmann/json.hpp>

#include "billm/checkpoint/checkpoint.h"
#include "billm/pipeline/quantize_model.h"

namespace billm {

// SHA-256 of the sequences.
std::string tokens_digest(const TokenMatrix& tokens);

// Of config.json and every tensor's name, dtype, shape and bytes, however they are sharded.
std::string source_digest(const Checkpoint& checkpoint, int threads);

// Everything that decides the bytes of the result.
nlohmann::ordered_json settings_json(const QuantizeRequest& request, const Checkpoint& source);

}  // namespace billm
