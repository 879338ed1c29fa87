// How the processes of a group share a block's work: the calibration sequences and their sums, and
// the row tiles of each layer. Nothing here changes a byte of the result.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "billm/calibrate/collect.h"
#include "billm/pipeline/process_group.h"
#include "billm/quantize/row_share.h"

namespace billm {

// The parts of the sequences (sum_part) that this process has: rank, rank + size, ...
struct OwnSequences {
  std::vector<int64_t> ids;    // of the sequences, ascending
  std::vector<int64_t> parts;  // how many of them are in each of its parts
};
OwnSequences own_sequences(int64_t sequences, const ProcessGroup& group);

// Sums over the parts of all processes: the first one adds them in their order and tells the sum.
class GroupSums : public SumExchange {
 public:
  // `widths`: the input groups that are summed and their widths; `sequences`: of all processes.
  GroupSums(ProcessGroup& processes, std::vector<std::pair<std::string, int64_t>> widths,
            int64_t sequences, int threads);
  void add(StatsByGroup part) override;
  StatsByGroup finish() override;

 private:
  StatsByGroup empty() const;  // of the right sizes

  ProcessGroup& processes_;
  const std::vector<std::pair<std::string, int64_t>> widths_;
  const int64_t sequences_;
  const int threads_;
  int64_t round_ = 0;
  StatsByGroup total_;
};

// Equal runs of tiles, by rank.
class GroupRows : public RowShare {
 public:
  explicit GroupRows(ProcessGroup& processes) : processes_(processes) {}
  Tiles own(int64_t tiles) const override;
  void complete(int64_t tile_rows, RegionCodes* linear) const override;
  void complete(TrellisCodes* codes) const override;

 private:
  ProcessGroup& processes_;
};

}  // namespace billm
