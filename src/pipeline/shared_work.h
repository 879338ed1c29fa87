// How the processes of a group share a block's work: the calibration sequences and their sums, and
// the row tiles of each layer. Nothing here changes a byte of the result.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
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
  // `groups`: the input groups that are summed; `sequences`: of all processes.
  struct Group {
    std::string name;
    int64_t width = 0;
    int64_t cross_width = 0, stream_width = 0;  // rows of cross and of drift; 0: not summed
  };
  GroupSums(ProcessGroup& processes, std::vector<Group> groups, int64_t sequences, int threads);
  void add(StatsByGroup part) override;
  StatsByGroup finish() override;

 private:
  StatsByGroup empty() const;  // of the right sizes
  // Calls body(bytes) for pieces of all that `stats` has of the groups; what body leaves there is
  // kept if `writes`.
  void for_pieces(StatsByGroup& stats, bool writes,
                  const std::function<void(std::span<std::byte>)>& body) const;

  ProcessGroup& processes_;
  const std::vector<Group> groups_;
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
