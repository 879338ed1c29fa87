// The sums X^T X of a block's input groups, as the calibration sequences make them: all at once on
// the block as it comes, or, with --sequential, each on what the groups before have become.
#pragma once

#include <string>

#include "billm/calibrate/collect.h"
#include "billm/pipeline/process_group.h"
#include "billm/report/report.h"
#include "shared_work.h"

namespace billm {

class CollectedStats {
 public:
  struct Options {
    bool sequential = false;
    bool sums_on_device = false;  // CollectOptions
    int forward_threads = 1, threads = 1;
    HeavyTokens heavy = {};          // of this process's sequences
    BlockWalk* originals = nullptr;  // for corrected targets: `walk` in the original model
  };
  // Keeps the references and `seconds`, to which it adds forward and hessian. `walk`: through
  // the block, of this process's sequences `own`; `sequences`: of all processes.
  CollectedStats(const ModelSpec& spec, const Rope& rope, BlockWalk& walk, const OwnSequences& own,
                 int64_t sequences, ProcessGroup& processes, const Options& options,
                 QuantizeSeconds* seconds)
      : spec_(spec),
        rope_(rope),
        walk_(walk),
        own_(own),
        sequences_(sequences),
        processes_(processes),
        options_(options),
        seconds_(seconds) {}

  // What the block before was not asked for is dropped.
  void start_block() { stats_.clear(); }
  // To be asked for a group of a block once at most, the first one first (GroupStats). `original`:
  // the block as it was.
  CalibrationStats take(const Block& original, const Block& block, const std::string& group);

 private:
  StatsByGroup collect(const Block& original, const Block& block, const std::string& group);

  const ModelSpec& spec_;
  const Rope& rope_;
  BlockWalk& walk_;
  const OwnSequences& own_;
  const int64_t sequences_;
  ProcessGroup& processes_;
  const Options options_;
  QuantizeSeconds* const seconds_;
  StatsByGroup stats_;  // of the groups that are still to be asked for
};

}  // namespace billm
