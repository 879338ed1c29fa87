// See run_states.h.
#include "run_states.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "allocation.h"
#include "billm/base/log.h"
#include "block_shard.h"

namespace billm {

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

LayerPlan RunStates::plan() {
  LayerPlan plan;
  if (processes_.first()) {
    for (const auto& [module, bits] : plan_bits(model_.spec(), request_.method)) {
      plan[module] = {{"bits", bits}};
    }
    if (request_.method.nm_alloc == NmAllocation::kAdaptive) {
      for (const auto& [module, nm] : adaptive_nm()) plan[module] = {{"nm", nm.text()}};
    }
  }
  const std::string text = processes_.broadcast_text(0, nlohmann::ordered_json(plan).dump());
  return nlohmann::ordered_json::parse(text).get<LayerPlan>();
}

std::map<std::string, NmPattern> RunStates::adaptive_nm() {
  std::vector<int64_t> all(static_cast<size_t>(request_.calibration.rows));
  std::iota(all.begin(), all.end(), 0);
  const HiddenShape all_shape = shape(std::move(all));
  HiddenStates states(partial_, all_shape, place_of(all_shape), device_);
  embed_all(&states);
  const Stopwatch forward;
  const auto outliers =
      measure_outliers(model_, rope_, partial_, device_, forward_threads_, request_.quiet, &states);
  *forward_seconds_ += forward.seconds();
  return allocate_nm(outliers, request_.method.nm);
}

void RunStates::start(Journal* journal) {
  const auto done = static_cast<int64_t>(journal->blocks.size());
  const bool tuned = request_.tune.has_value();
  const HiddenShape own = shape(ids_);
  inputs_.emplace(partial_, own, place_of(own), device_);
  int64_t first = 0;  // the block whose inputs they are
  if (!journal->hidden.empty()) {
    first = journal->hidden_block;
    inputs_->open(journal->hidden, kQuantizedStream);
    if (tuned) {
      HiddenStates originals(partial_, own, HiddenPlace::kMemory, device_);
      originals.open(journal->hidden, kOriginalStream);
      for (int64_t i = 0; i < originals.count(); ++i) {
        originals_.push_back(originals.load(i));  // keeps its memory
      }
    }
    if (first == done) return;
  } else {
    if (done > 0 && processes_.first()) {
      log_warning("--resume: the hidden states are lost: computing them from the " +
                  std::to_string(done) + " finished blocks");
    }
    embed_all(&*inputs_);
    for (int64_t i = 0; tuned && i < inputs_->count(); ++i) {
      originals_.push_back(inputs_->load(i).clone());
    }
  }
  for (int64_t b = first; b < done; ++b) {
    // The journal's files are those of all processes, and are dropped with the next journal.
    const bool of_journal = b == first && !journal->hidden.empty();
    const std::vector<WrittenFile> before =
        of_journal ? std::vector<WrittenFile>() : inputs_->files();
    pass_finished(*journal, b);
    for (const WrittenFile& file : before) std::filesystem::remove(partial_ / file.name);
  }
  for (WrittenFile& file : of_all_processes(inputs_->files())) {
    journal->hidden.push_back(std::move(file));
  }
}

void RunStates::embed_all(HiddenStates* states) const {
  const Embedding embed(model_.weights(), model_.spec());
  const auto compute = [&](int64_t first, int64_t count, const auto& take) {
    for (int64_t i = first; i < first + count; ++i) {
      const std::span<const int32_t> tokens = request_.calibration.row(states->id(i));
      take(i, embed(tokens).to(device_));
    }
  };
  states->replace(name(0), compute, 2 * forward_threads_);
}

// Block b is one that an earlier run has finished.
void RunStates::pass_finished(const Journal& journal, int64_t b) {
  const ModelSpec& spec = model_.spec();
  if (request_.tune) {
    pass_originals(load_block(model_.weights(), spec, b, request_.threads, device_));
  }
  const std::string& shard = journal.blocks.at(static_cast<size_t>(b)).shard.name;
  pass(b + 1,
       load_finished_block(partial_ / shard, model_.weights(), spec, b, request_.threads, device_));
}

void RunStates::pass(int64_t next, const Block& block) {
  const Stopwatch forward;
  const auto compute = [&](int64_t first, int64_t count, const auto& take) {
    forward_each(model_.spec(), block, rope_, *inputs_, first, count, forward_threads_, take);
  };
  inputs_->replace(name(next), compute, 2 * forward_threads_);
  // A GPU's work is only queued: the clock waits for it.
  if (!device_.is_cpu() && inputs_->count() > 0) inputs_->load(0).narrow(0, 0, 1).cpu();
  *forward_seconds_ += forward.seconds();
}

void RunStates::pass_originals(const Block& block) {
  advance(model_.spec(), block, rope_, originals_, forward_threads_, forward_seconds_);
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
  if (request_.tune) {
    const std::vector<WrittenFile> originals =
        save_states(partial_, "original-" + name(next), kOriginalStream, shape(ids_), originals_,
                    writing_threads_);
    files.insert(files.end(), originals.begin(), originals.end());
  }
  files = of_all_processes(files);
  saving_seconds_ = saving.seconds();
  since_saved_ = {};
  return files;
}

HiddenShape RunStates::shape(std::vector<int64_t> ids) const {
  return {std::move(ids), request_.calibration.cols, model_.spec().config.hidden_size};
}

HiddenPlace RunStates::place_of(const HiddenShape& shape) const {
  // With tuning the original model's states are in memory besides.
  const int64_t rest = beside_hidden_states(model_.spec()) + (request_.tune ? shape.bytes() : 0);
  return choose_hidden_place(shape.bytes(), rest, device_, local_processes());
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
    const std::string text = processes_.broadcast_text(rank, own.dump());
    for (const auto& file : nlohmann::json::parse(text)) all.push_back(file_from(file));
  }
  return all;
}

}  // namespace billm
