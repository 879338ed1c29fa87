// A packed model distilled against its original into a new packed model of the same size.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "billm/checkpoint/npy.h"
#include "billm/learn/config.h"
#include "billm/report/report.h"

namespace billm {

struct DistillRequest {
  std::filesystem::path model;     // packed
  std::filesystem::path original;  // the dense checkpoint that it was quantized from
  std::filesystem::path out;       // result directory, whole or not at all
  DistillConfig config;
  TokenMatrix calibration;                         // [sequences, length]
  std::string calibration_source;                  // what the user asked for, for the manifest
  std::vector<CalibrationPart> calibration_parts;  // of a mixture; of one text none
  std::string device = "auto";
  int threads = 1;
  bool overwrite = false;
  bool resume = false;  // goes on from the last step that an unfinished run of `out` stored
  bool quiet = false;
};

struct DistillReport {
  std::filesystem::path output;
  double nominal_bits = 0, stored_bits = 0;
  double file_bits = 0;        // of the whole file per parameter
  TuneReport tune;             // KL per token on the held-out windows
  std::vector<double> losses;  // of every step, before it
  int resumed_step = 0;        // steps that an earlier run had made
  int64_t peak_rss_bytes = 0;
};

// Throws Error as quantize_model does. The state of the training is stored beside the result at
// most a tenth of the time; --resume goes on from there, to the same bytes. request.model stays as
// it is.
DistillReport distill_model(const DistillRequest& request);

}  // namespace billm
