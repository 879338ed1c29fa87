// Calibration passes: the inputs of a block's linears summed into CalibrationStats, and the hidden
// states moved on to the next block. GPTQ, arXiv:2210.17323, section 3: H = 2/n * X^T X.
//
// Memory: collect_stats stores the inputs of a chunk of sequences (CollectOptions::input_bytes) and
// two [width, width] matrices for each group (four, and two [stream, width], with the original's
// stream); every thread adds one forward pass (block.h), or two; a BlockWalk that keeps points has
// the stream and the present group's input of every sequence.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "billm/calibrate/stats.h"
#include "billm/model/block.h"

namespace billm {

// The hidden states of the calibration sequences that this process works on.
class Sequences {
 public:
  virtual ~Sequences() = default;
  virtual int64_t count() const = 0;
  virtual int64_t tokens(int64_t i) const = 0;
  // [tokens, hidden] on the device of the pass. Several threads may call it at once.
  virtual at::Tensor load(int64_t i) const = 0;
};

// Sequences that are in memory, in a vector that must outlive this.
class TensorSequences : public Sequences {
 public:
  explicit TensorSequences(const std::vector<at::Tensor>& tensors) : tensors_(tensors) {}
  int64_t count() const override { return static_cast<int64_t>(tensors_.size()); }
  int64_t tokens(int64_t i) const override { return tensors_[static_cast<size_t>(i)].size(0); }
  at::Tensor load(int64_t i) const override { return tensors_[static_cast<size_t>(i)]; }

 private:
  const std::vector<at::Tensor>& tensors_;
};

// The sequences on their way through one block: where each was left, so that a pass need not begin
// at the block's inputs again to reach the next group of linears, or the block's end.
class BlockWalk {
 public:
  // Keeps the references. `inputs`: of the block. Without `keeps` every pass begins at them.
  BlockWalk(const ModelSpec& spec, const Sequences& inputs, bool keeps);
  const Sequences& inputs() const { return inputs_; }
  // Where sequence i was left, or the block's start; it is not kept any more. Several threads may
  // take and leave sequences of their own.
  BlockPoint take(const Block& block, int64_t i);
  void leave(int64_t i, BlockPoint point);
  // Forgets all points: the inputs are those of another block, or linears that a sequence has
  // passed have changed.
  void restart();

 private:
  const ModelSpec& spec_;
  const Sequences& inputs_;
  const bool keeps_;
  std::vector<BlockPoint> points_;  // without `input`: none
};

// X^T X is the sum over kSumParts runs of consecutive sequences, each summed from zero, added in
// order: so it is the same for any number of processes that share the runs. Eight: as many
// processes as can share a calibration; each part costs them one exchange of matrices.
inline constexpr int64_t kSumParts = 8;
struct SumPart {
  int64_t first = 0, count = 0;  // sequences; there may be none
};
SumPart sum_part(int64_t sequences, int64_t part);

using StatsByGroup = std::map<std::string, CalibrationStats>;  // key: LinearSpec::group

// total += part, of whose X^T X the upper triangles count; an empty `total` becomes `part`.
void add_stats(StatsByGroup part, int threads, StatsByGroup* total);

// How several processes make one sum of their parts. Every process calls add() for each of its own
// parts, in order, and then finish().
class SumExchange {
 public:
  virtual ~SumExchange() = default;
  virtual void add(StatsByGroup part) = 0;
  virtual StatsByGroup finish() = 0;  // the sum of all parts of all processes
};

// Tokens that count `times` in the sums, by sequence (as in Sequences; empty: there are none).
struct HeavyTokens {
  int64_t times = 1;
  std::vector<std::vector<int64_t>> positions;  // of each sequence, ascending
};

// For corrected targets (quantize/targets.h): the same sequences in the original model.
struct OriginalStream {
  const Block& block;
  BlockWalk& walk;
};

struct CollectOptions {
  int threads = 1;
  // Stored inputs: as many sequences as fit, at least one. The result does not depend on it.
  int64_t input_bytes = int64_t{1} << 30;
  // X^T X is summed where the forward pass runs, a GPU, and the inputs stay there until then (the
  // same bound); else on the CPU, in tiles that the threads share. The sums differ in rounding.
  bool sums_on_device = false;
  std::string group = {};  // this input group alone; empty: all of them
  HeavyTokens heavy = {};
  std::optional<OriginalStream> original = {};  // CalibrationStats::cross and ::drift are wanted
  // How many sequences each part of this process has (empty: all parts of sum_part are here), and
  // with several processes their exchange.
  std::vector<int64_t> parts = {};
  SumExchange* exchange = nullptr;
};

// Wall-clock seconds, added to what stands there.
struct CollectSeconds {
  double forward = 0;
  double hessian = 0;
};

// Stats of every input group (LinearSpec::group) of the block over all sequences, of any length
// that `rope` covers; they are left at the last of the groups. Bitwise the same for any thread
// count, chunk size and number of processes: fp32 sums over the tokens of a sequence, then over the
// sequences of a part in order, then over the parts; with sums_on_device for any chunk size, on the
// same kind of device. Throws Error{kFailure} if an input is not finite.
StatsByGroup collect_stats(const ModelSpec& spec, const Block& block, const Rope& rope,
                           BlockWalk& walk, const CollectOptions& options,
                           CollectSeconds* seconds = nullptr);

// Calls take(i, what is behind the block) for the sequences [first, first + count), from several
// threads.
void forward_each(const ModelSpec& spec, const Block& block, const Rope& rope, BlockWalk& walk,
                  int64_t first, int64_t count, int threads,
                  const std::function<void(int64_t, at::Tensor)>& take);

// hidden[i] = block(hidden[i]) for all i, in place. `seconds`, if given, is added to.
void advance(const ModelSpec& spec, const Block& block, const Rope& rope,
             std::vector<at::Tensor>& hidden, int threads, double* seconds = nullptr);

}  // namespace billm
