// The main job, block by block: see include/billm/pipeline/quantize_model.h.
#include "billm/pipeline/quantize_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "background.h"
#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/base/log.h"
#include "billm/base/parallel.h"
#include "billm/base/progress.h"
#include "billm/base/stopwatch.h"
#include "billm/calibrate/collect.h"
#include "billm/model/model.h"
#include "billm/model/runtime.h"
#include "billm/pack/packed_planes.h"
#include "billm/pipeline/process_group.h"
#include "billm/quantize/methods.h"
#include "billm/tune/tune_block.h"
#include "block_loader.h"
#include "block_shard.h"
#include "gpu_accelerator.h"
#include "journal.h"
#include "kernels/cuda/load.h"
#include "layer_error.h"
#include "output_directory.h"
#include "packed_result.h"
#include "result_files.h"
#include "run_states.h"
#include "settings.h"
#include "shared_work.h"

namespace billm {
namespace {

// Adds the seconds of a scope to a sum.
class ScopeSeconds {
 public:
  explicit ScopeSeconds(double* sum) : sum_(sum) {}
  ~ScopeSeconds() { *sum_ += watch_.seconds(); }

 private:
  double* sum_;
  Stopwatch watch_;
};

class Run {
 public:
  Run(const QuantizeRequest& request, ProcessGroup& processes)
      : request_(request),
        method_(find_method(request.method.method)),
        processes_(processes),
        rows_(processes),
        device_(resolve_device(request.device, DeviceUse::kTensors,
                               processes.alone() ? 0 : local_rank())),
        forward_threads_(device_.is_cpu() ? request.threads : 1),
        own_(own_sequences(request.calibration.rows, processes)),
        model_(request.model, request.threads),
        loader_(model_.weights(), model_.spec(), request.threads, device_, !device_.is_cpu()) {
    if (!device_.is_cpu()) start_accelerator();
    if (model_.packed() != nullptr) {
      throw bad_input(request.model.string() + ": is quantized already",
                      "give --model the original checkpoint");
    }
    if (request.calibration.rows < 1 || request.calibration.cols < 2) {
      throw bad_input(
          request.calibration_source +
          ": expected at least one sequence of at least two tokens, got " +
          shape_text(std::vector<int64_t>{request.calibration.rows, request.calibration.cols}));
    }
    check_length(model_.spec(), request.calibration.cols);
    check_leftovers();
    journal_.settings = settings_json(request, model_.checkpoint());
    open_output();
    report_.resumed_blocks = static_cast<int64_t>(journal_.blocks.size());
  }

  QuantizeReport run() {
    {
      const ScopeSeconds total(&report_.seconds.total);
      const Rope rope = make_rope(model_.spec(), request_.calibration.cols, device_);
      states_.emplace(request_, model_, processes_, rope, own_.ids, partial_, device_,
                      &report_.seconds.forward);
      if (report_.resumed_blocks == 0) journal_.nm = states_->allocate();
      if (report_.resumed_blocks < model_.spec().blocks()) {
        states_->start(&journal_);
        report_.hidden_place = states_->inputs().place();
      }
      Progress progress("quantize", model_.spec().blocks(), request_.quiet);
      progress.skip(report_.resumed_blocks);
      for (int64_t b = report_.resumed_blocks; b < model_.spec().blocks(); ++b) {
        progress.step(quantize_block(b, rope));
      }
      finish();
    }
    report_.peak_rss_bytes = peak_rss_bytes();
    return report_;
  }

 private:
  void start_accelerator() {
    std::string why;
    const kernels::cuda::CudaApi* const kernels = kernels::cuda::load_cuda_kernels(&why);
    if (kernels == nullptr && processes_.first()) {
      log_warning("the CPU chooses the codes, which takes longer: " + why);
    }
    accelerator_.emplace(device_, kernels);
  }

  // The first process makes the output directory and reads the journal; the others take both over.
  void open_output() {
    using Existing = OutputDirectory::Existing;
    const QuantizeRequest& request = request_;
    if (processes_.first()) {
      directory_.emplace(request.out,
                         request.resume && request.overwrite ? Existing::kResumeOverwrite
                         : request.resume                    ? Existing::kResume
                         : request.overwrite                 ? Existing::kOverwrite
                                                             : Existing::kRefuse,
                         std::vector<std::filesystem::path>{request.model});
      partial_ = directory_->partial();
      if (request.resume &&
          !read_journal(partial_, journal_.settings, request.threads, &journal_)) {
        log_warning("--resume: no block was finished before: starting from the first");
      }
    }
    partial_ = processes_.broadcast_text(0, partial_.string());
    const std::string text = processes_.broadcast_text(0, journal_json(journal_).dump());
    if (processes_.first()) return;
    Journal theirs = journal_from(nlohmann::ordered_json::parse(text));
    if (nlohmann::json(theirs.settings) != nlohmann::json(journal_.settings)) {
      throw Error(ErrorCode::kUsage, "the processes were given different models or settings",
                  "start all of them with the same arguments");
    }
    journal_ = std::move(theirs);
    if (!std::filesystem::is_directory(partial_)) {
      throw Error(ErrorCode::kFailure,
                  partial_.string() + ": expected the first process's directory, got nothing there",
                  "choose an --out on a file system that all processes share");
    }
  }

  bool tuned() const { return request_.tune.has_value(); }

  // Of a finished block, for the progress line.
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
  std::string quantize_block(int64_t b, const Rope& rope) {
    const ModelSpec& spec = model_.spec();
    Block block = loader_.take(b);
    // The full-precision block's outputs, before its linears are replaced.
    if (tuned()) {
      wait_for_writing();  // of the originals
      states_->pass_originals(block);
    }

    JournalBlock done;
    const auto shard = std::make_shared<BlockShard>();
    // Kept until the block has been tuned; without tuning every layer is packed at once.
    std::map<std::string, Hessian> hessians;  // by group
    std::map<std::string, TunedLinear> linears;
    std::map<std::string, CalibrationStats> stats;
    if (!request_.sequential) stats = collect(block, rope, states_->inputs(), "");
    for (const std::string& group : spec.groups()) {
      writing_.check();
      if (request_.sequential) stats = collect(block, rope, states_->inputs(), group);
      std::optional<ScopeSeconds> quantize(&report_.seconds.quantize);
      Hessian hessian = make_hessian(std::move(stats.at(group)), method_.needs_factor,
                                     request_.method.damping, request_.threads, accelerator());
      if (hessian.retries > 0 && processes_.first()) {
        log_warning("block " + std::to_string(b) + ", " + group + ": damping raised " +
                    std::to_string(hessian.retries) +
                    " times, to lambda = " + std::to_string(hessian.lambda));
      }
      for (const LinearSpec& linear : spec.family->linears) {
        if (linear.group != group) continue;
        const std::string module = spec.module(b, linear);
        const at::Tensor original = block.weight(linear.suffix).cpu().contiguous();
        TunedLinear quantized = {original, quantize_layer(module, original, hessian)};
        if (tuned()) {
          if (request_.sequential) block.set_weight(linear.suffix, decoded(quantized.codes));
          linears[linear.suffix] = std::move(quantized);
        } else {
          quantize.reset();
          done.layers.push_back(
              pack_layer(module, linear.suffix, quantized, hessian, &block, shard.get()));
          quantize.emplace(&report_.seconds.quantize);
        }
      }
      hessian.factor = {};
      if (tuned()) hessians[group] = std::move(hessian);
    }
    if (tuned()) {
      done.tune = tune(b, rope, linears, &block);
      for (const LinearSpec& linear : spec.family->linears) {
        done.layers.push_back(pack_layer(spec.module(b, linear), linear.suffix,
                                         linears.at(linear.suffix), hessians.at(linear.group),
                                         &block, shard.get()));
      }
    }
    if (tuned()) shard->add_norms(block, spec, b, model_.checkpoint());
    const std::string line = summary(b, done);
    wait_for_writing();
    if (b + 1 < spec.blocks()) states_->pass(b + 1, block);
    // Messages to other processes come from this thread.
    const auto write = [this, b, done, shard] { commit(b, done, *shard); };
    if (processes_.alone()) {
      writing_.start(write);
    } else {
      write();
    }
    return line;
  }

  // Until the block before is on disk, and recorded.
  void wait_for_writing() {
    const ScopeSeconds pack(&report_.seconds.pack);
    writing_.wait();
  }

  // A tensor beside a quantized weight would share a name's prefix with the planes.
  void check_leftovers() const {
    const ModelSpec& spec = model_.spec();
    std::set<std::string> modules;
    for (int64_t b = 0; b < spec.blocks(); ++b) {
      for (const LinearSpec& linear : spec.family->linears) modules.insert(spec.module(b, linear));
    }
    for (const std::string& name : model_.checkpoint().names()) {
      const size_t dot = name.rfind('.');
      if (dot == std::string::npos || modules.count(name.substr(0, dot)) == 0) continue;
      if (name.substr(dot) != ".weight" && name.substr(dot) != ".bias") {
        throw bad_input(request_.model.string() + ": " + name +
                        ": expected only a weight and a bias in this module");
      }
    }
  }

  const Accelerator* accelerator() const { return accelerator_ ? &*accelerator_ : nullptr; }

  MethodConfig layer_config(const std::string& module) const {
    MethodConfig config = request_.method;
    const auto allocated = journal_.nm.find(module);
    if (allocated != journal_.nm.end()) config.nm = parse_nm(allocated->second);
    return config;
  }

  QuantizeContext context() const {
    return {.threads = request_.threads,
            .share = processes_.alone() ? nullptr : &rows_,
            .accelerator = accelerator()};
  }

  RegionCodes quantize_layer(const std::string& module, const at::Tensor& original,
                             const Hessian& hessian) const {
    return method_.quantize({original.const_data_ptr<float>(), original.size(0), original.size(1)},
                            hessian, layer_config(module), context());
  }

  // Inputs of one group of the block, or of all.
  StatsByGroup collect(const Block& block, const Rope& rope, const HiddenStates& hidden,
                       const std::string& group) {
    const ModelSpec& spec = model_.spec();
    CollectSeconds seconds;
    CollectOptions options;
    options.threads = forward_threads_;
    options.sums_on_device = !device_.is_cpu();
    options.group = group;
    std::map<std::string, int64_t> widths;
    for (const LinearSpec& linear : spec.family->linears) {
      if (group.empty() || linear.group == group) {
        widths[linear.group] = linear.in_width(spec.config);
      }
    }
    GroupSums sums(processes_, {widths.begin(), widths.end()}, request_.calibration.rows,
                   request_.threads);
    options.parts = own_.parts;
    if (!processes_.alone()) options.exchange = &sums;
    StatsByGroup stats = collect_stats(spec, block, rope, hidden, options, &seconds);
    report_.seconds.forward += seconds.forward;
    report_.seconds.hessian += seconds.hessian;
    return stats;
  }

  at::Tensor decoded(const RegionCodes& codes) const {
    std::vector<float> weight = dequantize(codes);
    return at::from_blob(weight.data(), {codes.shape.rows, codes.shape.cols}, at::kFloat)
        .clone()
        .to(device_);
  }

  // Tunes the block; its linears and norms are replaced by what will be stored.
  TuneReport tune(int64_t b, const Rope& rope, std::map<std::string, TunedLinear>& linears,
                  Block* block) {
    for (const auto& [suffix, linear] : linears) {
      block->set_weight(suffix, decoded(linear.codes));
    }
    const NormTypes types = norm_types(model_.checkpoint(), model_.spec(), b);
    TuneReport report =
        tune_block(model_.spec(), rope, states_->inputs().load_all(), states_->originals(),
                   *request_.tune, types, forward_threads_, block, &linears);
    report_.seconds.tune += report.seconds;
    return report;
  }

  // Packs one layer and replaces its weight in `block` by what the packed bytes decode to.
  LayerReport pack_layer(const std::string& module, const std::string& suffix,
                         const TunedLinear& quantized, const Hessian& hessian, Block* block,
                         BlockShard* shard) {
    LayerReport layer;
    layer.name = module;
    layer.rows = quantized.original.size(0);
    layer.cols = quantized.original.size(1);
    layer.damping = hessian.lambda;
    layer.nm = quantized.codes.shape.nm.active() ? quantized.codes.shape.nm.text() : "";
    layer.nominal_bits = method_.nominal_bits(quantized.codes);
    layer.salient_share = salient_share(quantized.codes);
    layer.region_shares = region_shares(quantized.codes, request_.threads);
    layer.integer_bits = quantized.codes.shape.integer_bits;
    at::Tensor decoded;
    {
      const ScopeSeconds pack_time(&report_.seconds.pack);
      const PackedPlanes& packed = shard->add(module, pack(quantized.codes, request_.threads));
      decoded = decode_weight(packed, module, request_.threads);
      layer.stored_bits = packed.stored_bits();
    }
    {
      const ScopeSeconds quantize(&report_.seconds.quantize);
      layer.error = layer_error(quantized.original, decoded, hessian_matrix(hessian, device_),
                                request_.threads);
    }
    block->set_weight(suffix, decoded.to(device_));
    return layer;
  }

  // Stores block b and, if their turn has come, the inputs of the next one, then the journal (from
  // here on block b is done), then drops the inputs that were stored before. While blocks are
  // quantized only this touches the journal's blocks and hidden states.
  void commit(int64_t b, JournalBlock done, const BlockShard& shard) {
    const ScopeSeconds write(&report_.seconds.write);
    const int64_t blocks = model_.spec().blocks();
    if (processes_.first()) done.shard = shard.write(partial_, shard_name(b, blocks + 1));
    std::vector<WrittenFile> old;
    journal_.blocks.push_back(std::move(done));
    if (b + 1 == blocks) {
      old = std::exchange(journal_.hidden, {});
      processes_.barrier();  // all have read theirs
    } else if (states_->saving_is_due()) {
      try {
        old = std::exchange(journal_.hidden, states_->save(b + 1));
      } catch (...) {  // no room: block b is kept, as its states can be computed
        if (processes_.first()) write_journal(partial_, journal_);
        throw;
      }
      journal_.hidden_block = b + 1;
    }
    if (!processes_.first()) return;
    write_journal(partial_, journal_);
    directory_->keep();
    for (const WrittenFile& file : old) std::filesystem::remove(partial_ / file.name);
  }

  void finish() {
    wait_for_writing();
    sum_up(journal_, &report_);
    report_.method = method_.name;
    report_.blocks = model_.spec().blocks();
    if (processes_.first()) {
      const ScopeSeconds pack(&report_.seconds.pack);
      const std::vector<WrittenFile> files =
          write_result(model_, request_, journal_, report_, partial_);
      // A run killed from here on is finished by --resume without any block done again: the journal
      // goes last, and nothing reads it in a result that is in its place.
      write_journal(partial_, journal_);
      remove_others(partial_, files);
      directory_->finish();
      std::filesystem::remove(directory_->out() / kJournalName);
      report_.output = directory_->out();
      report_.bytes_before = checkpoint_bytes(model_.checkpoint());
      for (const WrittenFile& file : files) {
        if (std::filesystem::path(file.name).extension() == ".safetensors") {
          report_.bytes_after += file.bytes;
        }
      }
    }
    processes_.barrier();
  }

  const QuantizeRequest& request_;
  const Method& method_;
  ProcessGroup& processes_;
  const GroupRows rows_;
  c10::Device device_;
  const int forward_threads_;  // a GPU's stream is filled by one thread
  const OwnSequences own_;     // of the calibration sequences
  Model model_;
  BlockLoader loader_;
  std::optional<GpuAccelerator> accelerator_;  // not on a CPU
  std::optional<OutputDirectory> directory_;   // of the first process
  std::filesystem::path partial_;              // of all
  Journal journal_;
  std::optional<RunStates> states_;
  QuantizeReport report_;
  Background writing_;  // last: it ends before what it uses goes
};

// What LatentLinear would refuse after the first block.
void check_tunable(const MethodConfig& method) {
  if (method.reference) {
    throw Error(ErrorCode::kUsage, "--tune: cannot go with --compat reference",
                "the published code stores means, which are not tuned: leave out one of them");
  }
  if (method.offset_kind != OffsetKind::kNone) {
    throw Error(ErrorCode::kUsage, "--tune: layers with offsets cannot be tuned",
                "leave out --offsets");
  }
  if (integer_bits(method) > 1) {
    throw Error(ErrorCode::kUsage,
                "--tune: --method " + method.method + " makes integers, which cannot be tuned",
                "choose a binary method, or leave out --tune");
  }
}

}  // namespace

QuantizeReport quantize_model(const QuantizeRequest& request, ProcessGroup& processes) {
  check_config(request.method);
  if (request.tune) check_tunable(request.method);
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
