// See collected_stats.h.
#include "collected_stats.h"

#include <map>
#include <utility>

namespace billm {

CalibrationStats CollectedStats::take(const Block& block, const std::string& group) {
  if (stats_.count(group) == 0) stats_ = collect(block, options_.sequential ? group : "");
  CalibrationStats result = std::move(stats_.at(group));
  stats_.erase(group);
  return result;
}

// The statistics of one group of the block, or of all.
StatsByGroup CollectedStats::collect(const Block& block, const std::string& group) {
  CollectSeconds seconds;
  CollectOptions options;
  options.threads = options_.forward_threads;
  options.sums_on_device = options_.sums_on_device;
  options.group = group;
  std::map<std::string, int64_t> widths;
  for (const LinearSpec& linear : spec_.family->linears) {
    if (group.empty() || linear.group == group) {
      widths[linear.group] = linear.in_width(spec_.config);
    }
  }
  GroupSums sums(processes_, {widths.begin(), widths.end()}, sequences_, options_.threads);
  options.parts = own_.parts;
  if (!processes_.alone()) options.exchange = &sums;
  StatsByGroup stats = collect_stats(spec_, block, rope_, hidden_, options, &seconds);
  seconds_->forward += seconds.forward;
  seconds_->hessian += seconds.hessian;
  return stats;
}

}  // namespace billm
