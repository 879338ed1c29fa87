// The main job: checkpoint -> calibrate -> quantize -> pack -> store, block by block, resumable.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "billm/checkpoint/npy.h"
#include "billm/learn/config.h"
#include "billm/pipeline/embedding_bits.h"
#include "billm/pipeline/process_group.h"
#include "billm/quantize/config.h"
#include "billm/report/report.h"

namespace billm {

struct QuantizeRequest {
  std::filesystem::path model;  // dense HuggingFace directory
  std::filesystem::path out;    // result directory; `out`.partial while it is being made
  MethodConfig method;
  nlohmann::ordered_json plan;  // of --plan (layer_plan.h); null: none
  std::string plan_source;      // its file, for messages
  // --target-bits: stored bits that the layers take in the mean, shared out among them; method.bits
  // is the rate that they start from (allocate_bits.h).
  std::optional<double> target_bits;
  std::optional<TuneConfig> tune;                  // none: blocks are not tuned
  TokenMatrix calibration;                         // [sequences, length]
  std::string calibration_source;                  // what the user asked for, for the manifest
  std::vector<CalibrationPart> calibration_parts;  // of a mixture; of one text none
  uint64_t seed = 0;                               // of the calibration windows, for the manifest
  EmbeddingBits embedding_bits;  // what the matrices outside of the blocks are stored in
  std::string device = "auto";
  int threads = 1;
  // Calibrate a block's input groups (q/k/v, o, gate/up, down) in turn, each on what the quantized
  // linears before it make of the inputs; else all on the original block.
  bool sequential = false;
  // Corrected targets are always found so.
  bool is_sequential() const { return sequential || method.targets == Targets::kCorrected; }
  bool overwrite = false;  // an existing `out` (or an unfinished run) is replaced at the end
  bool resume = false;     // go on with `out`.partial; settings must be the same
  bool quiet = false;
  std::string label = "quantize";  // of the progress
};

// Every process of `processes` calls it with the same request, but for its threads; `out` lies on a
// file system that they share, and only the first one's report names it. The result's bytes do not
// depend on how many there are.
// Throws Error: kBadInput for the model or the calibration, kUsage for contradicting settings or an
// existing result, kFailure for the machine. What was finished stays in `out`.partial for resume.
QuantizeReport quantize_model(const QuantizeRequest& request, ProcessGroup& processes);

// Writes the model of `model` (packed or dense) as an ordinary fp16 checkpoint at `out`.
void export_dense(const std::filesystem::path& model, const std::filesystem::path& out,
                  bool overwrite, int threads, bool quiet);

}  // namespace billm
