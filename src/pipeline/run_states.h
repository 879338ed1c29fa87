// The hidden states of a quantizing run: the inputs of the block that is next, and with tuning or
// corrected targets those that it has in the original model; made at the start, taken up by
// --resume, passed on through each block, and stored now and then for the next --resume.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "billm/base/stopwatch.h"
#include "billm/model/block.h"
#include "billm/model/model.h"
#include "billm/pipeline/process_group.h"
#include "billm/pipeline/quantize_model.h"
#include "hidden_states.h"
#include "journal.h"
#include "original_pass.h"

namespace billm {

class RunStates {
 public:
  // Keeps the references and `forward_seconds`, to which passes add. `ids`: of this process's
  // sequences; `partial`: the unfinished result.
  RunStates(const QuantizeRequest& request, const Model& model, ProcessGroup& processes,
            const Rope& rope, std::vector<int64_t> ids, std::filesystem::path partial,
            c10::Device device, double* forward_seconds);

  // What is decided for single layers, by the first process for all; empty if nothing is. What a
  // method plans from the original model has its place here, beside the N of N:M.
  // To what `given` says of single layers, what is not said of the others is added.
  LayerPlan plan(LayerPlan given);
  // The tokens that count more in the sums, of the sequences of all processes.
  SinksBySequence sinks();
  // The inputs of the first block that `journal` does not have: its hidden states, or the embedded
  // tokens, passed on through the blocks that it has. What lies in files is journal->hidden then.
  void start(Journal* journal);

  const HiddenStates& inputs() const { return *inputs_; }
  bool has_originals() const { return originals_.has_value(); }
  const HiddenStates& originals() const { return *originals_; }
  // The same on their way through the block that is next.
  BlockWalk& walk() { return *walk_; }
  BlockWalk& originals_walk() { return *originals_walk_; }
  // Where no pass will go on: their memory is free then.
  void drop_points();
  // Of this process, in which the states lie; none in memory.
  std::vector<WrittenFile> files() const;
  // On through a block: the inputs, or the originals, become those of block `next`. States that lie
  // in files are in new ones then.
  void pass(int64_t next, const Block& block);
  void pass_originals(int64_t next, const Block& block);

  // What became of the sinks, inputs() and originals() being behind the same block: of all
  // processes, added in the order of the sequences, so that it is the same for any number of
  // processes.
  SinkReport sink_report();

  // Whether to store states that are in memory: in not more than a tenth of the time, since
  // --resume gets on from older ones by a forward pass through each block between.
  bool saving_is_due() const;
  // Files with the inputs of block `next`, of all processes. Beside inputs() and the work of this
  // thread nothing else may run in several processes.
  std::vector<WrittenFile> save(int64_t next);

 private:
  std::map<std::string, NmPattern> adaptive_nm(const LayerPlan& plan);
  OriginalPass original_pass() const;
  std::string original_name(int64_t block) const { return "original-" + name(block); }
  void embed_all(const std::string& name, HiddenStates* states) const;
  void pass_states(const std::string& name, const Block& block, BlockWalk* walk,
                   HiddenStates* states);
  void pass_finished(const Journal& journal, int64_t b);
  int streams() const;  // 2: the originals too
  HiddenShape shape(std::vector<int64_t> ids) const;
  HiddenPlace place_of(const HiddenShape& shape) const;
  std::string name(int64_t block) const;
  std::vector<WrittenFile> of_all_processes(const std::vector<WrittenFile>& files);

  const QuantizeRequest& request_;
  const Model& model_;
  ProcessGroup& processes_;
  const Rope& rope_;
  const std::vector<int64_t> ids_;
  const std::filesystem::path partial_;
  const c10::Device device_;
  const int forward_threads_, writing_threads_;
  double* const forward_seconds_;
  std::optional<HiddenStates> inputs_, originals_;
  std::optional<BlockWalk> walk_, originals_walk_;
  Stopwatch since_saved_;
  double saving_seconds_ = 0;  // what it took then
};

}  // namespace billm
