// Settings and report of block tuning (tune_block.h). Torch-free.
#pragma once

#include <cstdint>

#include "billm/report/report.h"  // TuneReport

namespace billm {

// Every field is a setting that the manifest records and --resume compares.
struct TuneConfig {
  int steps = 128;          // of AdamW, per block
  int64_t window = 256;     // tokens whose error a window sums; earlier tokens are its context
  int batch = 2;            // windows of a step
  double code_rate = 0.01;  // see LearnRates; all rates fall to 0 along a cosine
  double scale_rate = 0.01;
  double norm_rate = 0.01;  // relative to the norm weights' mean magnitude
  double margin = 0.05;     // distance of a starting latent from its cell's border, in units
  uint64_t seed = 0;        // of the windows' order
  bool operator==(const TuneConfig&) const = default;
};

// The code_rate of tuning that begins with corrected targets: at 0.01 no block of a dbf result
// gained (docs/measurements/binary_factors.md).
inline constexpr double kCorrectedCodeRate = 0.0003;

// Distillation of the whole model, after the last block (distill.h).
struct DistillConfig {
  int steps = 60;        // of AdamW
  int64_t window = 512;  // tokens of a window, computed without any context before them
  int batch = 2;         // windows of a step
  double code_rate = 0;  // codes stay: at 0.005 learning them diverged (decision 0007)
  double scale_rate = 0.0005;
  double norm_rate = 0.0005;
  double margin = 0.05;
  uint64_t seed = 0;
};

// How often, along the steps, the held-out loss is measured and the best state kept.
inline constexpr int kTuneChecks = 4;

}  // namespace billm
