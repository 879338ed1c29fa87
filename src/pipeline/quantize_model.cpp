// The main job, block by block: the loop with resume. What it stands on is quantize_job.h, what is
// done to a block is block_quantizer.h, what is written is packed_model_writer.h.
#include "billm/pipeline/quantize_model.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>

#include "background.h"
#include "billm/base/error.h"
#include "billm/base/log.h"
#include "billm/base/progress.h"
#include "billm/base/stopwatch.h"
#include "billm/learn/tune_block.h"
#include "billm/model/model_bits.h"
#include "billm/model/runtime.h"
#include "block_loader.h"
#include "block_quantizer.h"
#include "block_shard.h"
#include "collected_stats.h"
#include "embedding_rows.h"
#include "packed_model_writer.h"
#include "quantize_job.h"
#include "result_files.h"
#include "run_states.h"
#include "target_bits.h"

namespace billm {
namespace {

class Run {
 public:
  Run(const QuantizeRequest& request, ProcessGroup& processes)
      : job_(request, processes),
        rope_(make_rope(job_.spec(), request.calibration.cols, job_.device)),
        loader_(job_.model.weights(), job_.spec(), request.threads, job_.device,
                !job_.device.is_cpu()),
        states_(request, job_.model, processes, rope_, job_.own.ids, job_.partial, job_.device,
                &report_.seconds.forward),
        quantizer_(job_.spec(), request.method, job_.context(), job_.device, &report_.seconds) {
    if (job_.directory) writer_.emplace(job_.model, *job_.directory);
    report_.method = request.method.method;
    report_.calibration_parts = request.calibration_parts;
    report_.target_bits = request.target_bits;
    report_.blocks = job_.spec().blocks();
    report_.resumed_blocks = static_cast<int64_t>(job_.journal.blocks.size());
  }

  QuantizeReport run() {
    {
      const ScopeSeconds total(&report_.seconds.total);
      const int64_t blocks = report_.blocks, resumed = report_.resumed_blocks;
      if (resumed == 0) {
        job_.journal.plan = states_.plan(given_plan());
        job_.journal.sinks = states_.sinks();
      }
      if (resumed < blocks) start();
      Progress progress(job_.request.label, blocks, job_.request.quiet);
      progress.skip(resumed);
      for (int64_t b = resumed; b < blocks; ++b) progress.step(run_block(b));
      finish();
    }
    report_.peak_rss_bytes = peak_rss_bytes();
    return report_;
  }

 private:
  // What is said of single layers, by the user or to reach the bits that were asked for.
  LayerPlan given_plan() {
    if (!job_.request.target_bits) return job_.plan;
    const ScopeSeconds plan(&report_.seconds.plan);
    return plan_target_bits(job_, job_.plan);
  }

  void start() {
    states_.start(&job_.journal);
    report_.hidden_place = hidden_place_name(states_.inputs().place());
    const CollectedStats::Options options = {
        .sequential = job_.request.is_sequential(),
        .sums_on_device = !job_.device.is_cpu(),
        .forward_threads = job_.forward_threads,
        .threads = job_.request.threads,
        .heavy = heavy_tokens(),
        .originals = corrects() ? &states_.originals_walk() : nullptr};
    stats_.emplace(job_.spec(), rope_, states_.walk(), job_.own, job_.request.calibration.rows,
                   job_.processes, options, &report_.seconds);
  }

  bool corrects() const { return job_.request.method.targets == Targets::kCorrected; }

  HeavyTokens heavy_tokens() const {
    HeavyTokens heavy = {job_.request.method.sink_weight, {}};
    if (heavy.times == 1) return heavy;
    for (const int64_t id : job_.own.ids) {
      const auto found = job_.journal.sinks.find(id);
      heavy.positions.push_back(found == job_.journal.sinks.end() ? std::vector<int64_t>()
                                                                  : found->second);
    }
    return heavy;
  }

  // What the progress line says of a finished block.
  static std::string summary(int64_t b, const JournalBlock& block) {
    double worst = 0;
    for (const LayerReport& layer : block.layers) worst = std::max(worst, *layer.error);
    char text[128];
    if (block.tune) {
      std::snprintf(text, sizeof(text), "block %ld: held-out loss %.4f, tuned %.4f",
                    static_cast<long>(b), block.tune->loss_before, block.tune->loss_after);
    } else {
      std::snprintf(text, sizeof(text), "block %ld: largest error %.4f", static_cast<long>(b),
                    worst);
    }
    return text;
  }

  // Returns the progress line.
  std::string run_block(int64_t b) {
    stats_->start_block();
    Block block = loader_.take(b);
    Block original;  // where it is needed; shares its weights, which are replaced in `block`
    if (states_.has_originals()) original = block;
    const GroupStats stats = [this, &original](const Block& here, const std::string& group) {
      writing_.check();
      return stats_->take(original, here, group);
    };
    BlockTuner tune;
    if (job_.tuned()) {
      tune = [this, b, &original](std::map<std::string, TunedLinear>* linears, Block* here) {
        pass_originals(b, original);
        states_.walk().restart();  // the linears are not those that it has passed
        const NormTypes types = norm_types(job_.model.checkpoint(), job_.spec(), b);
        return tune_block(job_.spec(), rope_, states_.inputs().load_all(),
                          states_.originals().load_all(), heavy_tokens(), *job_.request.tune, types,
                          job_.forward_threads, here, linears);
      };
    }
    QuantizedBlock quantized = quantizer_.quantize(b, job_.journal.plan, stats, tune, &block);

    JournalBlock done;
    done.tune = quantized.tune;
    const auto shard = std::make_shared<BlockShard>();
    for (QuantizedLayer& layer : quantized.layers) {
      if (layer.packed) {
        shard->add(layer.module, std::move(*layer.packed));
      } else {
        set_bits_as_it_is(&layer.report);
      }
      done.layers.push_back(std::move(layer.report));
    }
    if (job_.tuned()) shard->add_norms(block, job_.spec(), b, job_.model.checkpoint());
    if (job_.processes.first()) {
      for (const std::string& warning : quantized.warnings) log_warning(warning);
    }
    const std::string line = summary(b, done);
    wait_for_writing();
    if (b + 1 < report_.blocks) {
      states_.pass(b + 1, block);
      // Tuning has passed them on, if it had anything to tune.
      if (states_.has_originals() && !done.tune) pass_originals(b, original);
      if (states_.has_originals()) done.sinks = states_.sink_report();
    } else {
      states_.drop_points();
    }
    // Messages to other processes come from this thread.
    const auto write = [this, b, done, shard] { commit(b, done, *shard); };
    if (job_.processes.alone()) {
      writing_.start(write);
    } else {
      write();
    }
    return line;
  }

  // Of a layer that is not quantized.
  void set_bits_as_it_is(LayerReport* layer) const {
    const TensorView& weight = job_.model.checkpoint().tensor(layer->name + ".weight");
    layer->nominal_bits = layer->stored_bits = 8.0 * static_cast<double>(dtype_bytes(weight.dtype));
    layer->error = 0;
  }

  // Through the original block b, once nothing of the states is being written.
  void pass_originals(int64_t b, const Block& original) {
    wait_for_writing();
    states_.pass_originals(b + 1, original);
  }

  // Until the block before is on disk, and recorded.
  void wait_for_writing() {
    const ScopeSeconds pack(&report_.seconds.pack);
    writing_.wait();
  }

  // Stores block b and, if their turn has come, the inputs of the next one, then the journal (from
  // here on block b is done), then drops the inputs that were stored before. While blocks are
  // quantized only this touches the journal's blocks and hidden states.
  void commit(int64_t b, JournalBlock done, const BlockShard& shard) {
    const ScopeSeconds write(&report_.seconds.write);
    Journal& journal = job_.journal;
    if (writer_) done.shard = writer_->write_block(b, shard);
    std::vector<WrittenFile> old;
    journal.blocks.push_back(std::move(done));
    if (b + 1 == report_.blocks) {
      old = std::exchange(journal.hidden, {});
      job_.processes.barrier();  // all have read theirs
      // Tuning has passed on the originals once more.
      for (const WrittenFile& file : states_.files()) old.push_back(file);
    } else if (states_.saving_is_due()) {
      try {
        old = std::exchange(journal.hidden, states_.save(b + 1));
      } catch (...) {  // no room: block b is kept, as its states can be computed
        if (job_.processes.first()) write_journal(job_.partial, journal);
        throw;
      }
      journal.hidden_block = b + 1;
    }
    if (!job_.processes.first()) return;
    write_journal(job_.partial, journal);
    job_.directory->keep();
    for (const WrittenFile& file : old) std::filesystem::remove(job_.partial / file.name);
  }

  void finish() {
    wait_for_writing();
    std::vector<WrittenFile> shards;
    for (const JournalBlock& block : job_.journal.blocks) {
      shards.push_back(block.shard);
      report_.layers.insert(report_.layers.end(), block.layers.begin(), block.layers.end());
      if (block.tune) report_.tune.push_back(*block.tune);
      if (block.sinks) report_.sinks.push_back(*block.sinks);
    }
    warn_of_lost_sinks();
    report_.plan = job_.journal.plan;
    const MeanBits bits = mean_bits(report_.layers);
    report_.nominal_bits = bits.nominal;
    report_.stored_bits = bits.stored;
    if (writer_) {
      const ScopeSeconds pack(&report_.seconds.pack);
      const Checkpoint& source = job_.model.checkpoint();
      const EmbeddingBits& outside = job_.request.embedding_bits;
      std::map<std::string, IntegerRows> rounded =
          round_embeddings(job_.model, outside, job_.request.threads, &report_.integer_rows);
      report_.parameters = parameters(job_.model);
      report_.bytes_before = checkpoint_bytes(source);
      report_.bytes_after = writer_->finish(
          shards, {packed_config(source, job_.request.method, bits, outside.head_bits() != kAsItIs,
                                 modules_as_they_are()),
                   manifest_head(),
                   /*replaced=*/{}, std::move(rounded)});
      report_.file_bits = file_bits(report_.bytes_after, report_.parameters);
      report_.output = job_.directory->out();
    }
    job_.processes.barrier();
  }

  void warn_of_lost_sinks() const {
    std::string blocks;
    for (size_t b = 0; b < report_.sinks.size(); ++b) {
      if (report_.sinks[b].lost()) blocks += (blocks.empty() ? "" : ", ") + std::to_string(b);
    }
    if (blocks.empty() || !job_.processes.first()) return;
    log_warning("the tokens with massive activations are lost behind block " + blocks +
                ": text may be much worse than the errors say (--sink-weight makes them count more "
                "in calibration)");
  }

  std::vector<std::string> modules_as_they_are() const {
    std::vector<std::string> modules;
    for (const std::string& module : job_.spec().modules()) {
      if (stays(job_.journal.plan, module)) modules.push_back(module);
    }
    return modules;
  }

  nlohmann::ordered_json manifest_head() const {
    nlohmann::ordered_json head = {{"format_version", 0},  // the writer's
                                   {"settings", job_.journal.settings},
                                   {"nominal_bits", report_.nominal_bits},
                                   {"stored_bits", report_.stored_bits},
                                   {"file_bits", 0}};  // the writer's
    if (!report_.integer_rows.empty()) head["integer_rows"] = report_.integer_rows;
    if (!job_.journal.plan.empty()) head["plan"] = job_.journal.plan;
    for (const LayerReport& layer : report_.layers) head["layers"].push_back(layer);
    for (const JournalBlock& block : job_.journal.blocks) {
      if (!job_.tuned()) break;
      head["tune"].push_back(nullptr);  // of a block that stays as it is
      if (!block.tune) continue;
      head["tune"].back() = *block.tune;
      head["tune"].back().erase("seconds");  // the same bytes on every run
    }
    for (const SinkReport& sinks : report_.sinks) head["sinks"].push_back(sinks);
    return head;
  }

  QuantizeJob job_;
  QuantizeReport report_;
  const Rope rope_;
  BlockLoader loader_;
  RunStates states_;
  const BlockQuantizer quantizer_;
  std::optional<CollectedStats> stats_;      // while there are blocks to quantize
  std::optional<PackedModelWriter> writer_;  // of the first process
  Background writing_;                       // last: it ends before what it uses goes
};

}  // namespace

QuantizeReport quantize_model(const QuantizeRequest& request, ProcessGroup& processes) {
  check_config(request.method);
  if (request.tune && !processes.alone()) {
    throw Error(ErrorCode::kUsage, "--tune: works in one process only",
                "leave out --tune, or start one process (WORLD_SIZE 1)");
  }
  init_torch();
  const at::NoGradGuard no_grad;
  Run run(request, processes);
  try {
    return run.run();
  } catch (const std::exception& error) {
    processes.fail(error.what());  // before the output directory goes
    throw;
  }
}

}  // namespace billm
