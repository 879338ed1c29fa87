// How a model is to be run, as its files say: generation_config.json, and config.json for what ends
// a text. What transformers' generate() would take from them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "billm/generate/sampler.h"

namespace billm {

struct GenerationConfig {
  // With the seed 0; temperature 0 unless do_sample is true. Where the file is silent the values of
  // transformers 5.23: temperature 1, top_k 50, top_p 1, min_p 0, repetition_penalty 1.
  SamplerSettings sampler;
  // The temperature if one samples, whatever do_sample says.
  double temperature = 1;
  // Tokens that end a text, those of config.json if generation_config.json names none.
  std::vector<int64_t> eos_token_ids;
};

// Reads a model directory's generation_config.json; a missing one says nothing. Throws
// Error{kBadInput} for a malformed one: "FILE: key: expected ..., got ...".
GenerationConfig read_generation_config(const std::filesystem::path& directory);

}  // namespace billm
