// The settings of a run: what the manifest records and --resume compares.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "billm/pipeline/quantize_model.h"

namespace billm {

// SHA-256 of the sequences.
std::string tokens_digest(const TokenMatrix& tokens);

// Everything that decides the bytes of the result; `model_digest`: of the model (model_digest.h).
nlohmann::ordered_json settings_json(const QuantizeRequest& request,
                                     const std::string& model_digest);

}  // namespace billm
