// What the commands report about a result and about the run that made it, and its JSON forms: the
// manifest, the journal of an unfinished run and --json have the same. Torch-free.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "billm/codes/layer_codes.h"

namespace billm {

// One factor of a layer's weight. Its statistics are what its kind has to say: numbers and lists of
// numbers by name. Of "planes": salient_share (of the columns), region_shares ([R + 1] shares of
// the weights; [R + 2] with integers, which come last) and integer_bits (0: there are none).
struct FactorReport {
  std::string kind;  // factor_kind_names()
  int64_t rows = 0, cols = 0;
  nlohmann::ordered_json statistics = nlohmann::ordered_json::object();
};

struct LayerReport {
  std::string name;            // module
  int64_t rows = 0, cols = 0;  // of the weight, [rows, cols] = [out, in]
  std::string nm;              // "4:8" or ""
  double nominal_bits = 0, stored_bits = 0;
  // tr(D H D') / tr(W H W'), H undamped, D = W minus decoded weights, W what was quantized (with
  // corrected targets these, not the original weights); not known of distilled ones.
  std::optional<double> error;
  double damping = 0;                 // lambda that the factorization needed; 0: none was made
  std::vector<FactorReport> factors;  // the weight is their product, outermost first
};

// Shape, N:M (of the factor that has a mask) and factors, from the codes.
LayerReport report_codes(const LayerCodes& codes, int threads);

// A statistic of the first factor that has it; null if none does.
const nlohmann::ordered_json& statistic(const LayerReport& layer, const char* name);

// A matrix outside of the blocks that is stored as integers: the embedding, the output head.
struct IntegerRowsReport {
  std::string name;  // module
  int64_t rows = 0, cols = 0;
  int bits = 8;  // of an integer
  double stored_bits = 0;
  double error = 0;  // squared, relative: |W - decoded|^2 / |W|^2
};

struct TuneReport {
  // Mean loss on the held-out windows: the last eighth, never trained on.
  double loss_before = 0, loss_after = 0;
  int best_step = 0;  // 0: tuning did not help, and nothing was changed
  double seconds = 0;
};

// Tokens with massive activations behind a block (pipeline/sinks.h).
struct SinkReport {
  int64_t tokens = 0;
  // Sums over these tokens: norm of the original's hidden state and of the quantized model's, and
  // the squared distance between them relative to the original's square. JSON has the means.
  double original_norm = 0, norm = 0, error = 0;
  void add(const SinkReport& other);
  // Whether the quantized model does not make them: less than half of the norm, in the mean.
  bool lost() const { return tokens > 0 && norm < 0.5 * original_norm; }
};

// A text of a mixture of calibration texts (--calib wikitext2:3,c4:1).
struct CalibrationPart {
  std::string name;   // a data set, or the name of a file
  double weight = 1;  // as the user gave it
  int64_t windows = 0;
  std::string digest;  // tokens_digest() of its windows; empty while they are not known (--dry-run)
};

// Mean bits of a weight, over all weights of the layers.
struct MeanBits {
  double nominal = 0, stored = 0;
};
MeanBits mean_bits(const std::vector<LayerReport>& layers);

struct QuantizeSeconds {
  double forward = 0;   // both passes of every block
  double hessian = 0;   // X^T X
  double quantize = 0;  // factorization, method, error report
  double tune = 0;      // block tuning
  double pack = 0;      // packing, decoding again, waiting for what is written
  double write = 0;     // shards and hidden states, while the next block is computed
  double plan = 0;      // with --target-bits: the uniform result, and where its error comes from
  double total = 0;
};

struct QuantizeReport {
  std::filesystem::path output;
  std::string method;
  double nominal_bits = 0, stored_bits = 0;   // means over the weights of the quantized layers
  double file_bits = 0;                       // 8 * bytes_after / parameters
  int64_t parameters = 0;                     // of the whole model
  int64_t bytes_before = 0, bytes_after = 0;  // of all safetensors files
  int64_t blocks = 0, resumed_blocks = 0;
  std::string hidden_place = "disk";  // "gpu", "memory", "disk" (hidden_place.h)
  QuantizeSeconds seconds;
  int64_t peak_rss_bytes = 0;
  std::optional<double> target_bits;                   // as asked for
  std::map<std::string, nlohmann::ordered_json> plan;  // the settings of single layers, by module
  std::vector<LayerReport> layers;
  // Per block but the last; empty where the original's hidden states are not known.
  std::vector<SinkReport> sinks;
  std::vector<TuneReport> tune;                    // per block; empty without tuning
  std::vector<CalibrationPart> calibration_parts;  // of a mixture; of one text none
  std::vector<IntegerRowsReport> integer_rows;     // none where all is stored as it was
};

// A layer that is one factor of planes has its statistics among its own keys, any other has
// "factors". Reading throws nlohmann::json::exception for what was not written so.
void to_json(nlohmann::ordered_json& json, const LayerReport& layer);
void from_json(const nlohmann::ordered_json& json, LayerReport& layer);
void to_json(nlohmann::ordered_json& json, const TuneReport& tune);
void from_json(const nlohmann::ordered_json& json, TuneReport& tune);
void to_json(nlohmann::ordered_json& json, const SinkReport& sinks);
void from_json(const nlohmann::ordered_json& json, SinkReport& sinks);
void to_json(nlohmann::ordered_json& json, const CalibrationPart& part);
void to_json(nlohmann::ordered_json& json, const IntegerRowsReport& rows);
void from_json(const nlohmann::ordered_json& json, IntegerRowsReport& rows);
void to_json(nlohmann::ordered_json& json, const QuantizeReport& report);

}  // namespace billm
