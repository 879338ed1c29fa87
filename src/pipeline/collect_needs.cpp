// See collect_needs.h.
#include "collect_needs.h"

#include <algorithm>
#include <string>

namespace billm {

double target_operations(int64_t rows, int64_t cols) {
  const auto n = static_cast<double>(rows), m = static_cast<double>(cols);
  return m * m * m / 3 + 4 * n * m * m;
}

int hidden_streams(const MethodConfig& config, bool tuned) {
  return tuned || config.targets == Targets::kCorrected ? 2 : 1;
}

int64_t point_bytes(const ModelSpec& spec, const MethodConfig& config, bool sequential) {
  if (!sequential) return 0;
  int64_t widest = 0;
  for (const std::string& group : spec.groups()) {
    widest = std::max(widest, spec.group_shape(group).cols);
  }
  return (config.targets == Targets::kCorrected ? 2 : 1) * 4 * (widest + spec.config.hidden_size);
}

bool keeps_points(int64_t hidden_bytes, int64_t points_bytes, HiddenPlace place,
                  const ModelSpec& spec, c10::Device device, int processes) {
  const HiddenPlace of_passes = device.is_cpu() ? HiddenPlace::kMemory : HiddenPlace::kDevice;
  return points_bytes > 0 && place == of_passes &&
         choose_hidden_place(hidden_bytes + points_bytes, beside_hidden_states(spec), device,
                             processes) == place;
}

CollectNeeds collect_needs(const ModelSpec& spec, const MethodConfig& config, bool sequential,
                           bool tuned, bool keeps_points) {
  const bool corrected = config.targets == Targets::kCorrected;
  CollectNeeds needs;
  const double collected = corrected ? 2 : 1;  // streams that are passed for the sums
  int64_t before = 0, all = 0;                 // weights of the groups before, and of all
  for (const std::string& group : spec.groups()) {
    const GroupShape size = spec.group_shape(group);
    const int64_t square = size.cols * size.cols;
    int64_t sums = square, token_bytes = 4 * size.cols;
    needs.summed += 0.5 * static_cast<double>(square);
    if (corrected) {
      sums += square + size.stream_rows * size.cols;
      token_bytes += 4 * (size.cols + size.stream_rows);
      needs.summed += static_cast<double>(square + size.stream_rows * size.cols);
      needs.target_bytes = std::max(
          needs.target_bytes, 8 * (2 * square + size.rows * size.cols) + 4 * size.rows * size.cols);
      needs.target_flops += target_operations(size.rows, size.cols);
    }
    before = all;
    all += size.rows * size.cols;
    if (!sequential) {
      needs.sums += sums;
      needs.token_bytes += token_bytes;
      continue;
    }
    needs.sums = std::max(needs.sums, sums);
    needs.token_bytes = std::max(needs.token_bytes, token_bytes);
    if (keeps_points) continue;
    needs.passed_weights += collected * static_cast<double>(before);
    needs.passed_attention += before > 0 ? collected : 0;
  }
  const auto pass = [&needs](double times, int64_t weights, double attention) {
    needs.passed_weights += times * static_cast<double>(weights);
    needs.passed_attention += times * attention;
  };
  if (!sequential) pass(1, all, 1);
  // To the last group, once. The originals of tuning are counted in learn_estimate.h.
  if (keeps_points) pass(tuned ? 1 : collected, before, 1);
  // On to the next block, from there if no linear has changed since.
  const double passed_on = corrected && !tuned ? 2 : 1;
  if (keeps_points && !tuned) {
    pass(passed_on, all - before, 0);
  } else {
    pass(passed_on, all, 1);
  }
  // Before the first block, to allocate N and to find the sinks.
  const int passes =
      (config.nm_alloc == NmAllocation::kAdaptive ? 1 : 0) + (config.sink_weight > 1 ? 1 : 0);
  pass(passes, all, 1);
  return needs;
}

}  // namespace billm
