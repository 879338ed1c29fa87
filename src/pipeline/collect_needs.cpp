// See collect_needs.h.
#include "collect_needs.h"

#include <algorithm>
#include <string>

namespace billm {
namespace {

struct GroupSize {
  int64_t cols = 0, rows = 0, stream_rows = 0;  // of the stream where it writes there, else 0
};

GroupSize size_of_group(const ModelSpec& spec, const std::string& group) {
  GroupSize size;
  for (const LinearSpec& linear : spec.family->linears) {
    if (linear.group != group) continue;
    size.cols = linear.in_width(spec.config);
    size.rows += linear.out_width(spec.config);
    if (writes_stream(linear)) size.stream_rows = spec.config.hidden_size;
  }
  return size;
}

}  // namespace

double target_operations(int64_t rows, int64_t cols) {
  const auto n = static_cast<double>(rows), m = static_cast<double>(cols);
  return m * m * m / 3 + 4 * n * m * m;
}

CollectNeeds collect_needs(const ModelSpec& spec, const MethodConfig& config, bool sequential,
                           bool tuned) {
  const bool corrected = config.targets == Targets::kCorrected;
  CollectNeeds needs;
  needs.streams = corrected || tuned ? 2 : 1;
  const double collected = corrected ? 2 : 1;  // streams that are passed for the sums
  int64_t before = 0;                          // weights of the groups before
  for (const std::string& group : spec.groups()) {
    const GroupSize size = size_of_group(spec, group);
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
    if (sequential) {
      needs.sums = std::max(needs.sums, sums);
      needs.token_bytes = std::max(needs.token_bytes, token_bytes);
      needs.passed_weights += collected * static_cast<double>(before);
      needs.passed_attention += before > 0 ? collected : 0;
    } else {
      needs.sums += sums;
      needs.token_bytes += token_bytes;
    }
    before += size.rows * size.cols;
  }
  const auto all = static_cast<double>(before);
  if (!sequential) {
    needs.passed_weights += all;
    needs.passed_attention += 1;
  }
  // On to the next block, and before the first one to allocate N and to find the sinks.
  const double others =
      (corrected && !tuned ? 2.0 : 1.0) +  // tuning counts its own (learn_estimate.h)
      (config.nm_alloc == NmAllocation::kAdaptive ? 1 : 0) + (config.sink_weight > 1 ? 1 : 0);
  needs.passed_weights += others * all;
  needs.passed_attention += others;
  return needs;
}

}  // namespace billm
