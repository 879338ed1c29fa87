// The main job, block by block: see include/billm/pipeline/quantize_model.h.
#include "billm/pipeline/quantize_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "allocation.h"
#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/base/log.h"
#include "billm/base/parallel.h"
#include "billm/base/progress.h"
#include "billm/calibrate/collect.h"
#include "billm/model/model.h"
#include "billm/model/runtime.h"
#include "billm/pack/packed_linear.h"
#include "billm/quantize/methods.h"
#include "billm/tune/tune_block.h"
#include "block_shard.h"
#include "hidden_states.h"
#include "journal.h"
#include "layer_error.h"
#include "output_directory.h"
#include "result_files.h"
#include "settings.h"

namespace billm {
namespace {

// Adds the seconds of a scope to a sum.
class Stopwatch {
 public:
  explicit Stopwatch(double* sum) : sum_(sum), start_(std::chrono::steady_clock::now()) {}
  ~Stopwatch() {
    *sum_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  double* sum_;
  std::chrono::steady_clock::time_point start_;
};

class Run {
 public:
  explicit Run(const QuantizeRequest& request)
      : request_(request),
        method_(find_method(request.method.method)),
        device_(resolve_device(request.device)),
        forward_threads_(device_.is_cpu() ? request.threads : 1),
        model_(request.model, request.threads) {
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
    using Existing = OutputDirectory::Existing;
    directory_.emplace(request.out,
                       request.resume && request.overwrite ? Existing::kResumeOverwrite
                       : request.resume                    ? Existing::kResume
                       : request.overwrite                 ? Existing::kOverwrite
                                                           : Existing::kRefuse,
                       std::vector<std::filesystem::path>{request.model});
    journal_.settings = settings_json(request, model_.checkpoint());
    check_leftovers();
    if (request.resume && !read_journal(directory_->partial(), journal_.settings, &journal_)) {
      log_warning("--resume: no block was finished before: starting from the first");
    }
    report_.resumed_blocks = static_cast<int64_t>(journal_.blocks.size());
  }

  QuantizeReport run() {
    {
      const Stopwatch total(&report_.seconds.total);
      const Rope rope = make_rope(model_.spec(), request_.calibration.cols, device_);
      start_hidden(rope);
      Progress progress("quantize", model_.spec().blocks(), request_.quiet);
      progress.skip(report_.resumed_blocks);
      for (int64_t b = report_.resumed_blocks; b < model_.spec().blocks(); ++b) {
        quantize_block(b, rope);
        progress.step(summary(b));
      }
      finish();
    }
    report_.peak_rss_bytes = peak_rss_bytes();
    return report_;
  }

 private:
  // Inputs of the first block that is not done; the N:M allocation if there is none yet.
  void start_hidden(const Rope& rope) {
    const ModelSpec& spec = model_.spec();
    if (report_.resumed_blocks == spec.blocks()) return;
    const TokenMatrix& tokens = request_.calibration;
    if (!journal_.hidden.name.empty()) {
      hidden_ =
          read_hidden(directory_->partial() / journal_.hidden.name, tokens.rows, tuned(), device_);
      return;
    }
    for (int64_t i = 0; i < tokens.rows; ++i) {
      const std::span<const int32_t> ids(tokens.values.data() + i * tokens.cols,
                                         static_cast<size_t>(tokens.cols));
      hidden_.quantized.push_back(embed(model_.weights(), spec, ids).to(device_));
    }
    if (tuned()) hidden_.original = hidden_.quantized;
    if (request_.method.nm.active() && request_.method.nm_alloc == "adaptive") {
      const Stopwatch forward(&report_.seconds.forward);
      const auto outliers = measure_outliers(model_, rope, hidden_.quantized, device_,
                                             forward_threads_, request_.quiet);
      for (const auto& [module, nm] : allocate_nm(outliers, request_.method.nm)) {
        journal_.nm[module] = nm.text();
      }
    }
  }

  bool tuned() const { return request_.tune.has_value(); }

  // Of a finished block, for the progress line.
  std::string summary(int64_t b) const {
    const JournalBlock& block = journal_.blocks.at(static_cast<size_t>(b));
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

  void quantize_block(int64_t b, const Rope& rope) {
    const ModelSpec& spec = model_.spec();
    Block block = load_block(model_.weights(), spec, b, request_.threads, device_);
    // The full-precision block's outputs, before its linears are replaced.
    if (tuned()) {
      advance(spec, block, rope, hidden_.original, forward_threads_, &report_.seconds.forward);
    }

    JournalBlock done;
    BlockShard shard;
    // Kept until the block has been tuned; without tuning every layer is packed at once.
    std::map<std::string, Hessian> hessians;  // by group
    std::map<std::string, TunedLinear> linears;
    std::map<std::string, CalibrationStats> stats;
    if (!request_.sequential) stats = collect(block, rope, "");
    for (const std::string& group : spec.groups()) {
      if (request_.sequential) stats = collect(block, rope, group);
      std::optional<Stopwatch> quantize(&report_.seconds.quantize);
      Hessian hessian = make_hessian(stats.at(group), method_.needs_factor, request_.method.damping,
                                     request_.threads);
      if (hessian.retries > 0) {
        log_warning("block " + std::to_string(b) + ", " + group + ": damping raised " +
                    std::to_string(hessian.retries) +
                    " times, to lambda = " + std::to_string(hessian.lambda));
      }
      for (const LinearSpec& linear : spec.family->linears) {
        if (linear.group != group) continue;
        at::Tensor& weight = block.linears.at(linear.suffix);
        const std::string module = spec.module(b, linear);
        const at::Tensor original = weight.cpu().contiguous();
        TunedLinear quantized = {original, quantize_layer(module, original, hessian)};
        if (tuned()) {
          if (request_.sequential) weight = decoded(quantized.codes);
          linears[linear.suffix] = std::move(quantized);
        } else {
          quantize.reset();
          done.layers.push_back(pack_layer(module, quantized, hessian, &weight, &shard));
          quantize.emplace(&report_.seconds.quantize);
        }
      }
      hessian.factor = {};
      if (tuned()) hessians[group] = std::move(hessian);
    }
    if (tuned()) {
      done.tune = tune(b, rope, linears, &block);
      for (const LinearSpec& linear : spec.family->linears) {
        done.layers.push_back(pack_layer(spec.module(b, linear), linears.at(linear.suffix),
                                         hessians.at(linear.group),
                                         &block.linears.at(linear.suffix), &shard));
      }
    }
    {
      const Stopwatch pack(&report_.seconds.pack);
      if (tuned()) {
        const std::vector<std::string> norms = norm_names(spec, b);
        const Checkpoint& source = model_.checkpoint();
        shard.add_norm(norms[0], block.attention_norm, source.tensor(norms[0]));
        shard.add_norm(norms[1], block.mlp_norm, source.tensor(norms[1]));
      }
      done.shard = shard.write(directory_->partial(), shard_name(b, spec.blocks() + 1));
    }
    advance(spec, block, rope, hidden_.quantized, forward_threads_, &report_.seconds.forward);
    journal_.blocks.push_back(std::move(done));
    commit(b);
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
      if (name.substr(dot) != ".weight") {
        throw bad_input(request_.model.string() + ": " + name +
                        ": expected only a weight in this module");
      }
    }
  }

  MethodConfig layer_config(const std::string& module) const {
    MethodConfig config = request_.method;
    config.threads = request_.threads;
    const auto allocated = journal_.nm.find(module);
    if (allocated != journal_.nm.end()) config.nm = parse_nm(allocated->second);
    return config;
  }

  QuantizedLinear quantize_layer(const std::string& module, const at::Tensor& original,
                                 const Hessian& hessian) const {
    return method_.quantize({original.const_data_ptr<float>(), original.size(0), original.size(1)},
                            hessian, layer_config(module));
  }

  // Inputs of one group of the block, or of all.
  std::map<std::string, CalibrationStats> collect(const Block& block, const Rope& rope,
                                                  const std::string& group) {
    CollectSeconds seconds;
    CollectOptions options;
    options.threads = forward_threads_;
    options.group = group;
    std::map<std::string, CalibrationStats> stats =
        collect_stats(model_.spec(), block, rope, hidden_.quantized, options, &seconds);
    report_.seconds.forward += seconds.forward;
    report_.seconds.hessian += seconds.hessian;
    return stats;
  }

  at::Tensor decoded(const QuantizedLinear& codes) const {
    std::vector<float> weight = dequantize(codes);
    return at::from_blob(weight.data(), {codes.shape.rows, codes.shape.cols}, at::kFloat)
        .clone()
        .to(device_);
  }

  // Tunes the block; its linears and norms are replaced by what will be stored.
  TuneReport tune(int64_t b, const Rope& rope, std::map<std::string, TunedLinear>& linears,
                  Block* block) {
    for (const auto& [suffix, linear] : linears) {
      block->linears.at(suffix) = decoded(linear.codes);
    }
    const NormTypes types = norm_types(model_.checkpoint(), model_.spec(), b);
    TuneReport report = tune_block(model_.spec(), rope, hidden_.quantized, hidden_.original,
                                   *request_.tune, types, forward_threads_, block, &linears);
    report_.seconds.tune += report.seconds;
    return report;
  }

  // Packs one layer and replaces its weight by what the packed bytes decode to.
  LayerReport pack_layer(const std::string& module, const TunedLinear& quantized,
                         const Hessian& hessian, at::Tensor* weight, BlockShard* shard) {
    LayerReport layer;
    layer.name = module;
    layer.rows = quantized.original.size(0);
    layer.cols = quantized.original.size(1);
    layer.damping = hessian.lambda;
    layer.nm = quantized.codes.shape.nm.active() ? quantized.codes.shape.nm.text() : "";
    layer.nominal_bits = method_.nominal_bits(quantized.codes);
    layer.salient_share = salient_share(quantized.codes);
    layer.region_shares = region_shares(quantized.codes);
    layer.integer_bits = quantized.codes.shape.integer_bits;
    at::Tensor decoded;
    {
      const Stopwatch pack_time(&report_.seconds.pack);
      const PackedLinear& packed = shard->add(module, pack(quantized.codes));
      decoded = decode_weight(packed, module, request_.threads);
      layer.stored_bits = packed.stored_bits();
    }
    {
      const Stopwatch quantize(&report_.seconds.quantize);
      layer.error = layer_error(quantized.original, decoded, hessian, request_.threads);
    }
    *weight = decoded.to(device_);
    return layer;
  }

  // Stores the inputs of block b + 1, then the journal (from here on block b is done), then drops
  // the inputs of block b.
  void commit(int64_t b) {
    const Stopwatch pack(&report_.seconds.pack);
    const std::string old = journal_.hidden.name;
    journal_.hidden = write_hidden(hidden_, directory_->partial(),
                                   "hidden-" + std::to_string(b + 1) + ".safetensors");
    write_journal(directory_->partial(), journal_);
    directory_->keep();
    if (!old.empty()) std::filesystem::remove(directory_->partial() / old);
  }

  void sum_up() {
    double weights = 0, nominal = 0, stored = 0;
    for (const JournalBlock& block : journal_.blocks) {
      for (const LayerReport& layer : block.layers) {
        const auto count = static_cast<double>(layer.rows * layer.cols);
        weights += count;
        nominal += count * layer.nominal_bits;
        stored += count * layer.stored_bits;
        report_.layers.push_back(layer);
      }
      if (block.tune) report_.tune.push_back(*block.tune);
    }
    report_.method = method_.name;
    report_.nominal_bits = nominal / weights;
    report_.stored_bits = stored / weights;
  }

  void finish() {
    sum_up();
    const std::filesystem::path partial = directory_->partial();
    const int64_t blocks = model_.spec().blocks();
    std::vector<std::string> shards;
    std::vector<WrittenFile> files;
    for (const JournalBlock& block : journal_.blocks) {
      shards.push_back(block.shard.name);
      files.push_back(block.shard);
    }
    {
      const Stopwatch pack(&report_.seconds.pack);
      shards.push_back(shard_name(blocks, blocks + 1));
      std::set<std::string> written;
      for (const LayerReport& layer : report_.layers) written.insert(layer.name + ".weight");
      // A .bin file lists a tied head beside the embedding that it is.
      if (model_.checkpoint().config().tie_word_embeddings) {
        written.insert(model_.spec().family->head);
      }
      for (int64_t b = 0; tuned() && b < blocks; ++b) {
        for (const std::string& norm : norm_names(model_.spec(), b)) written.insert(norm);
      }
      files.push_back(write_rest(model_.checkpoint(), written, {}, partial, shards.back()));
      write_index(partial, shards);
      write_config(model_.checkpoint(), request_.method, report_.nominal_bits, report_.stored_bits,
                   partial);
      std::vector<std::string> names = copy_side_files(model_.checkpoint().directory(), partial);
      names.insert(names.end(), {"config.json", "model.safetensors.index.json"});
      for (const std::string& name : names) files.push_back(written_file(partial, name));
      nlohmann::ordered_json head = {{"format_version", kFormatVersion},
                                     {"settings", journal_.settings},
                                     {"nominal_bits", report_.nominal_bits},
                                     {"stored_bits", report_.stored_bits}};
      for (const LayerReport& layer : report_.layers) {
        nlohmann::ordered_json json;
        to_json(json, layer);
        head["layers"].push_back(std::move(json));
      }
      for (const TuneReport& tune : report_.tune) {
        nlohmann::ordered_json json;
        to_json(json, tune);
        json.erase("seconds");  // the same bytes on every run
        head["tune"].push_back(std::move(json));
      }
      write_manifest(partial, head, files);
      // A run killed from here on is finished by --resume without any block done again: the journal
      // goes last, and nothing reads it in a result that is in its place.
      journal_.hidden = {};
      write_journal(partial, journal_);
      remove_others(partial, files);
      directory_->finish();
      std::filesystem::remove(directory_->out() / kJournalName);
    }
    report_.output = directory_->out();
    report_.blocks = blocks;
    report_.bytes_before = checkpoint_bytes(model_.checkpoint());
    for (const WrittenFile& file : files) {
      if (std::filesystem::path(file.name).extension() == ".safetensors") {
        report_.bytes_after += file.bytes;
      }
    }
  }

  const QuantizeRequest& request_;
  const Method& method_;
  c10::Device device_;
  const int forward_threads_;  // a GPU's stream is filled by one thread
  Model model_;
  std::optional<OutputDirectory> directory_;
  Journal journal_;
  HiddenStates hidden_;  // inputs of the next block, on device_
  QuantizeReport report_;
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
  if (bits_of(method) > 1) {
    throw Error(ErrorCode::kUsage,
                "--tune: --method " + method.method + " makes integers, which cannot be tuned",
                "choose a binary method, or leave out --tune");
  }
}

}  // namespace

QuantizeReport quantize_model(const QuantizeRequest& request) {
  check_config(request.method);
  if (request.tune) check_tunable(request.method);
  init_torch();
  const at::NoGradGuard no_grad;
  return Run(request).run();
}

}  // namespace billm
