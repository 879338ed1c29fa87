// The settings of a run: what the manifest records and --resume compares.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "billm/pipeline/quantize_model.h"

namespace billm {

// Everything that decides the bytes of the result; `model_digest`: of the model (model_digest.h).
nlohmann::ordered_json settings_json(const QuantizeRequest& request,
                                     const std::string& model_digest);

}  // namespace billm
