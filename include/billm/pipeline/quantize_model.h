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
#include "billm/pipeline/hidden_place.h"
#include "billm/pipeline/process_group.h"
#include "billm/quantize/config.h"

namespace billm {

struct QuantizeRequest {
  std::filesystem::path model;  // dense HuggingFace directory
  std::filesystem::path out;    // result directory; `out`.partial while it is being made
  MethodConfig method;
  std::optional<TuneConfig> tune;  // none: blocks are not tuned
  TokenMatrix calibration;         // [sequences, length]
  std::string calibration_source;  // what the user asked for, for the manifest
  uint64_t seed = 0;               // of the calibration windows, for the manifest
  std::string device = "auto";
  int threads = 1;
  // Calibrate a block's input groups (q/k/v, o, gate/up, down) in turn, each on what the quantized
  // linears before it make of the inputs; else all on the original block.
  bool sequential = false;
  bool overwrite = false;  // an existing `out` (or an unfinished run) is replaced at the end
  bool resume = false;     // go on with `out`.partial; settings must be the same
  bool quiet = false;
};

struct LayerReport {
  std::string name;  // module
  int64_t rows = 0, cols = 0;
  std::string nm;  // "4:8" or ""
  double nominal_bits = 0, stored_bits = 0, salient_share = 0;
  // tr(D H D') / tr(W H W'), H undamped, D = W minus decoded weights; not known of distilled ones.
  std::optional<double> error;
  double damping = 0;                 // lambda that the factorization needed; 0: none was made
  std::vector<double> region_shares;  // [R + 1]; [R + 2] with integers, which come last
  int integer_bits = 0;               // bits of an integer weight; 0: there are none
};
void to_json(nlohmann::ordered_json& json, const LayerReport& layer);
void from_json(const nlohmann::json& json, LayerReport& layer);
void to_json(nlohmann::ordered_json& json, const TuneReport& tune);
void from_json(const nlohmann::json& json, TuneReport& tune);

struct QuantizeSeconds {
  double forward = 0;   // both passes of every block
  double hessian = 0;   // X^T X
  double quantize = 0;  // factorization, method, error report
  double tune = 0;      // block tuning
  double pack = 0;      // packing, decoding again, waiting for what is written
  double write = 0;     // shards and hidden states, while the next block is computed
  double total = 0;
};

struct QuantizeReport {
  std::filesystem::path output;
  std::string method;
  double nominal_bits = 0, stored_bits = 0;   // means over the weights of the quantized layers
  int64_t bytes_before = 0, bytes_after = 0;  // of all safetensors files
  int64_t blocks = 0, resumed_blocks = 0;
  HiddenPlace hidden_place = HiddenPlace::kDisk;  // if a block was quantized
  QuantizeSeconds seconds;
  int64_t peak_rss_bytes = 0;
  std::vector<LayerReport> layers;
  std::vector<TuneReport> tune;  // per block; empty without tuning
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
