// See run_states.h.
#include "run_states.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "allocation.h"
#include "billm/base/json_text.h"
#include "billm/base/log.h"
#include "block_shard.h"
#include "collect_needs.h"
#include "sinks.h"

namespace billm {
namespace {

// What each process has of its own sequences, of all processes.
template <typename T>
std::map<int64_t, T> of_all_sequences(ProcessGroup& processes, const std::map<int64_t, T>& own) {
  std::map<int64_t, T> all;
  for (int rank = 0; rank < processes.size(); ++rank) {
    const std::string text = processes.broadcast_text(rank, dump_json(nlohmann::json(own)));
    all.merge(parse_json(text).get<std::map<int64_t, T>>());
  }
  return all;
}

}  // namespace

RunStates::RunStates(const QuantizeRequest& request, const Model& model, ProcessGroup& processes,
                     const Rope& rope, std::vector<int64_t> ids, std::filesystem::path partial,
                     c10::Device device, double* forward_seconds)
    : request_(request),
      model_(model),
      processes_(processes),
      rope_(rope),
      ids_(std::move(ids)),
      partial_(std::move(partial)),
      device_(device),
      forward_threads_(device.is_cpu() ? request.threads : 1),
      writing_threads_(std::max(1, request.threads / 4)),
      forward_seconds_(forward_seconds) {}

LayerPlan RunStates::plan(LayerPlan plan) {
  if (processes_.first()) {
    warn_of_planned_bits(model_.spec(), request_.method, plan);
    for (const auto& [module, bits] : plan_bits(model_.spec(), request_.method, plan)) {
      plan[module]["bits"] = bits;
    }
    if (request_.method.nm_alloc == NmAllocation::kAdaptive) {
      for (const auto& [module, nm] : adaptive_nm(plan)) plan[module]["nm"] = nm.text();
    }
  }
  const std::string text = processes_.broadcast_text(0, dump_json(nlohmann::ordered_json(plan)));
  return parse_ordered_json(text).get<LayerPlan>();
}

std::map<std::string, NmPattern> RunStates::adaptive_nm(const LayerPlan& plan) {
  std::vector<int64_t> all(static_cast<size_t>(request_.calibration.rows));
  std::iota(all.begin(), all.end(), 0);
  const HiddenShape all_shape = shape(std::move(all));
  HiddenStates states(partial_, all_shape, place_of(all_shape), device_);
  embed_all(name(0), &states);
  const Stopwatch forward;
  std::vector<LayerOutliers> outliers = measure_outliers(original_pass(), &states);
  *forward_seconds_ += forward.seconds();
  std::erase_if(outliers,
                [&](const LayerOutliers& layer) { return !follows_run(plan, layer.module, "nm"); });
  return allocate_nm(outliers, request_.method.nm);
}

SinksBySequence RunStates::sinks() {
  if (request_.method.sink_weight == 1) return {};
  const HiddenShape own = shape(ids_);
  HiddenStates states(partial_, own, place_of(own), device_);
  embed_all(name(0), &states);
  const Stopwatch forward;
  const std::vector<std::vector<int64_t>> found = find_sinks(original_pass(), &states);
  *forward_seconds_ += forward.seconds();
  SinksBySequence of_own;
  for (size_t i = 0; i < found.size(); ++i) {
    if (!found[i].empty()) of_own[ids_[i]] = found[i];
  }
  return of_all_sequences(processes_, of_own);
}

OriginalPass RunStates::original_pass() const {
  return {model_, rope_, partial_, device_, forward_threads_, request_.quiet, processes_.rank()};
}

void RunStates::start(Journal* journal) {
  const auto done = static_cast<int64_t>(journal->blocks.size());
  const HiddenShape own = shape(ids_);
  // Both are decided by what is free now, as the estimate does.
  const HiddenPlace place = place_of(own);
  const int64_t tokens = own.tokens * static_cast<int64_t>(own.ids.size());
  const bool keeps =
      keeps_points(streams() * own.bytes(),
                   tokens * point_bytes(model_.spec(), request_.method, request_.is_sequential()),
                   place, model_.spec(), device_, local_processes());
  inputs_.emplace(partial_, own, place, device_);
  if (streams() == 2) {
    originals_.emplace(partial_, own, place, device_, kOriginalStream);
  }
  walk_.emplace(model_.spec(), *inputs_, keeps);
  if (originals_) originals_walk_.emplace(model_.spec(), *originals_, keeps);
  int64_t first = 0;  // the block whose inputs they are
  if (!journal->hidden.empty()) {
    first = journal->hidden_block;
    inputs_->open(journal->hidden);
    if (originals_) originals_->open(journal->hidden);
    if (first == done) return;
  } else {
    if (done > 0 && processes_.first()) {
      log_warning("--resume: the hidden states are lost: computing them from the " +
                  std::to_string(done) + " finished blocks");
    }
    embed_all(name(0), &*inputs_);
    if (originals_) embed_all(original_name(0), &*originals_);
  }
  for (int64_t b = first; b < done; ++b) {
    // The journal's files are those of all processes, and are dropped with the next journal.
    const bool of_journal = b == first && !journal->hidden.empty();
    const std::vector<WrittenFile> before = of_journal ? std::vector<WrittenFile>() : files();
    pass_finished(*journal, b);
    for (const WrittenFile& file : before) std::filesystem::remove(partial_ / file.name);
  }
  for (WrittenFile& file : of_all_processes(files())) journal->hidden.push_back(std::move(file));
}

std::vector<WrittenFile> RunStates::files() const {
  std::vector<WrittenFile> all = inputs_->files();
  if (originals_) {
    all.insert(all.end(), originals_->files().begin(), originals_->files().end());
  }
  return all;
}

void RunStates::embed_all(const std::string& name, HiddenStates* states) const {
  const Embedding embed(model_.weights(), model_.spec());
  const auto compute = [&](int64_t first, int64_t count, const auto& take) {
    for (int64_t i = first; i < first + count; ++i) {
      const std::span<const int32_t> tokens = request_.calibration.row(states->id(i));
      take(i, embed(tokens).to(device_));
    }
  };
  states->replace(name, compute, 2 * forward_threads_);
}

// Block b is one that an earlier run has finished.
void RunStates::pass_finished(const Journal& journal, int64_t b) {
  const ModelSpec& spec = model_.spec();
  if (originals_) {
    pass_originals(b + 1, load_block(model_.weights(), spec, b, request_.threads, device_));
  }
  const std::string& shard = journal.blocks.at(static_cast<size_t>(b)).shard.name;
  pass(b + 1, load_finished_block(partial_ / shard, model_.weights(), spec, b, journal.plan,
                                  request_.threads, device_));
}

void RunStates::drop_points() {
  walk_->restart();
  if (originals_walk_) originals_walk_->restart();
}

void RunStates::pass(int64_t next, const Block& block) {
  pass_states(name(next), block, &*walk_, &*inputs_);
}

void RunStates::pass_originals(int64_t next, const Block& block) {
  pass_states(original_name(next), block, &*originals_walk_, &*originals_);
}

void RunStates::pass_states(const std::string& name, const Block& block, BlockWalk* walk,
                            HiddenStates* states) {
  const Stopwatch forward;
  const auto compute = [&](int64_t first, int64_t count, const auto& take) {
    forward_each(model_.spec(), block, rope_, *walk, first, count, forward_threads_, take);
  };
  states->replace(name, compute, 2 * forward_threads_);
  walk->restart();
  // A GPU's work is only queued: the clock waits for it.
  if (!device_.is_cpu() && states->count() > 0) states->load(0).narrow(0, 0, 1).cpu();
  *forward_seconds_ += forward.seconds();
}

SinkReport RunStates::sink_report() {
  const std::vector<SinkReport> found = compare_sinks(*originals_, *inputs_, forward_threads_);
  std::map<int64_t, std::array<double, 4>> own;  // by sequence
  for (size_t i = 0; i < found.size(); ++i) {
    own[ids_[i]] = {static_cast<double>(found[i].tokens), found[i].original_norm, found[i].norm,
                    found[i].error};
  }
  SinkReport sum;
  for (const auto& [id, part] : of_all_sequences(processes_, own)) {
    sum.add({static_cast<int64_t>(part[0]), part[1], part[2], part[3]});
  }
  return sum;
}

bool RunStates::saving_is_due() const {
  constexpr double kTimes = 10;
  // Several processes must agree, and what lies in files costs nothing.
  return !processes_.alone() || inputs_->place() == HiddenPlace::kDisk ||
         since_saved_.seconds() >= kTimes * saving_seconds_;
}

std::vector<WrittenFile> RunStates::save(int64_t next) {
  const Stopwatch saving;
  std::vector<WrittenFile> files = inputs_->save(name(next), writing_threads_);
  if (originals_) {
    const std::vector<WrittenFile> originals =
        originals_->save(original_name(next), writing_threads_);
    files.insert(files.end(), originals.begin(), originals.end());
  }
  files = of_all_processes(files);
  saving_seconds_ = saving.seconds();
  since_saved_ = {};
  return files;
}

int RunStates::streams() const {
  return hidden_streams(request_.method, request_.tune.has_value());
}

HiddenShape RunStates::shape(std::vector<int64_t> ids) const {
  return {std::move(ids), request_.calibration.cols, model_.spec().config.hidden_size};
}

HiddenPlace RunStates::place_of(const HiddenShape& shape) const {
  return choose_hidden_place(streams() * shape.bytes(), beside_hidden_states(model_.spec()),
                             device_, local_processes());
}

// The name of this process's file with the inputs of a block.
std::string RunStates::name(int64_t block) const {
  return "hidden-" + std::to_string(block) + "-" + std::to_string(processes_.rank());
}

std::vector<WrittenFile> RunStates::of_all_processes(const std::vector<WrittenFile>& files) {
  nlohmann::ordered_json own = nlohmann::ordered_json::array();
  for (const WrittenFile& file : files) own.push_back(file_json(file));
  std::vector<WrittenFile> all;
  for (int rank = 0; rank < processes_.size(); ++rank) {
    const std::string text = processes_.broadcast_text(rank, dump_json(own));
    for (const auto& file : parse_json(text)) all.push_back(file_from(file));
  }
  return all;
}

}  // namespace billm
