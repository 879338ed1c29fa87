// What calibrating one block takes, for the estimate of a run (estimate.cpp): the counts follow
// collect.h, collected_stats.h, targets.h and run_states.h; and whether a run keeps points there.
#pragma once

#include <cstdint>

#include "billm/model/family.h"
#include "billm/pipeline/hidden_place.h"
#include "billm/quantize/config.h"

namespace billm {

struct CollectNeeds {
  int64_t sums = 0;             // fp32 elements of all sums that are in memory at once
  int64_t token_bytes = 0;      // stored inputs of a token, of the groups that are summed at once
  double passed_weights = 0;    // weights that a token is multiplied with, in all passes
  double passed_attention = 0;  // attentions that it goes through
  double summed = 0;            // multiplications of a token for the sums
  int64_t target_bytes = 0;     // of corrected targets at their largest, besides the sums
  double target_flops = 0;      // of all corrected targets of a block
};

// Of corrected targets of [rows, cols].
double target_operations(int64_t rows, int64_t cols);

// Streams of hidden states that a run keeps: with tuning or corrected targets the original's, too.
int hidden_streams(const MethodConfig& config, bool tuned);

// Of a token at its largest in the points of BlockWalk, of all streams that are collected.
int64_t point_bytes(const ModelSpec& spec, const MethodConfig& config, bool sequential);

// Whether a run keeps points of `points_bytes` besides hidden states of `hidden_bytes` at `place`:
// if the passes run there, and it has room for both. Without them it passes more.
bool keeps_points(int64_t hidden_bytes, int64_t points_bytes, HiddenPlace place,
                  const ModelSpec& spec, c10::Device device, int processes);

CollectNeeds collect_needs(const ModelSpec& spec, const MethodConfig& config, bool sequential,
                           bool tuned, bool keeps_points);

}  // namespace billm
