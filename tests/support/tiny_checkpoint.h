// Random LLaMA checkpoints of any size, written without Python: for tests that need a model but no
// reference values.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "billm/checkpoint/dtype.h"

namespace billm::test {

struct TinyLlama {
  int64_t hidden = 64, intermediate = 96, blocks = 2, heads = 4, kv_heads = 2, head_dim = 16;
  int64_t vocab = 80;
  bool tied = false;
  uint32_t seed = 1;
  // Laid over config.json as a merge patch (a null removes a key).
  nlohmann::json config_changes = nlohmann::json::object();
  // More tensors, of this length each (biases).
  std::map<std::string, int64_t> vectors;
  // Called with every tensor before it is written: may change shape and values, or return false to
  // leave it out. Weights are stored as F16.
  std::function<bool(const std::string& name, std::vector<int64_t>& shape,
                     std::vector<uint16_t>& halves)>
      change;
};

// Writes config.json and model.safetensors into `directory` (created if need be). Holds one tensor
// at a time unless `change` is set.
void write_tiny_llama(const std::filesystem::path& directory, const TinyLlama& options = {});

}  // namespace billm::test
