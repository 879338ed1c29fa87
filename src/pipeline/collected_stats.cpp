// See collected_stats.h.
#include "collected_stats.h"

#include <utility>

namespace billm {

CalibrationStats CollectedStats::take(const Block& original, const Block& block,
                                      const std::string& group) {
  if (stats_.count(group) == 0) {
    stats_ = collect(original, block, options_.sequential ? group : "");
  }
  CalibrationStats result = std::move(stats_.at(group));
  stats_.erase(group);
  return result;
}

// The statistics of one group of the block, or of all.
StatsByGroup CollectedStats::collect(const Block& original, const Block& block,
                                     const std::string& group) {
  CollectSeconds seconds;
  CollectOptions options;
  options.threads = options_.forward_threads;
  options.sums_on_device = options_.sums_on_device;
  options.group = group;
  options.heavy = options_.heavy;
  if (options_.originals != nullptr) options.original.emplace(original, *options_.originals);
  std::vector<GroupSums::Group> groups;
  for (const std::string& name : spec_.groups()) {
    if (!group.empty() && name != group) continue;
    const GroupShape shape = spec_.group_shape(name);
    GroupSums::Group& sums = groups.emplace_back(GroupSums::Group{name, shape.cols});
    if (options_.originals == nullptr) continue;
    sums.cross_width = shape.cols;
    sums.stream_width = shape.stream_rows;
  }
  GroupSums sums(processes_, std::move(groups), sequences_, options_.threads);
  options.parts = own_.parts;
  if (!processes_.alone()) options.exchange = &sums;
  StatsByGroup stats = collect_stats(spec_, block, rope_, walk_, options, &seconds);
  seconds_->forward += seconds.forward;
  seconds_->hessian += seconds.hessian;
  return stats;
}

}  // namespace billm
