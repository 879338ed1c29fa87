// `billm quantize --dry-run`: what a run would need, from config.json alone and a probe of a few
// seconds on this machine. No weights are read.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "billm/checkpoint/config.h"
#include "billm/learn/config.h"
#include "billm/pipeline/embedding_bits.h"
#include "billm/pipeline/hidden_place.h"
#include "billm/quantize/config.h"

namespace billm {

struct EstimateRequest {
  ModelConfig model;
  std::string where;  // of config.json, for messages
  MethodConfig method;
  nlohmann::ordered_json plan;        // --plan (layer_plan.h); null: none
  std::string plan_source;            // its file, for messages
  std::optional<double> target_bits;  // --target-bits
  std::optional<TuneConfig> tune;     // --tune
  bool sequential = false;            // --sequential, or corrected targets
  int64_t sequences = 0, length = 0;  // calibration
  EmbeddingBits embedding_bits;
  std::string device = "auto";
  int threads = 1;
};

struct Estimate {
  int64_t blocks = 0;
  int64_t weights = 0;        // quantized ones
  int64_t other_weights = 0;  // embeddings, head, norms, biases
  double stored_bits = 0;  // per quantized weight: --target-bits, or the method's codes of a random
                           // layer, packed; of a method that plans bits, its plan
  double file_bits = 0;    // 8 * output_bytes per weight of the whole model
  int64_t output_bytes = 0;  // of the result's safetensors files
  int64_t disk_bytes = 0;    // at most, while it runs: the result and two files of hidden states
  int64_t hidden_bytes = 0;  // of the hidden states between two blocks, with tuning or
                             // corrected targets of the original's, too
  HiddenPlace hidden_place = HiddenPlace::kDisk;  // on this machine, as it is now
  int64_t cpu_bytes = 0;  // peak memory of the process with the hidden states that are kept there,
                          // mapped pages of the checkpoint left out
  int64_t gpu_bytes = 0;  // peak memory of the device, were it a GPU
  // Wall-clock seconds. From the probe's rates and the counts of operations.
  double forward_seconds = 0, hessian_seconds = 0, quantize_seconds = 0, tune_seconds = 0;
  double plan_seconds = 0;  // --target-bits: the uniform result, and where its error comes from
  double total_seconds = 0;
  double probe_seconds = 0;  // what the probe took
};

// Throws Error{kBadInput} for a model that is not supported, Error{kUsage} for the method.
Estimate estimate_quantize(const EstimateRequest& request);

}  // namespace billm
