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

void append_planes(const PackedLinear& packed, const std::string& module,
                   std::vector<TensorToWrite>* tensors, Metadata* metadata) {
  for (const Plane& plane : packed.planes) {
    tensors->push_back(
        {module + "." + plane.name, *parse_dtype(plane.dtype), plane.shape, plane.bytes});
  }
  metadata->emplace(module, describe(packed));
}

at::Tensor decode(const PackedLinear& packed, int threads) {
  at::Tensor weight = at::empty({packed.shape.rows, packed.shape.cols}, at::kFloat);
  float* out = weight.mutable_data_ptr<float>();
  constexpr int64_t kTile = 64;
  parallel_for((packed.shape.rows + kTile - 1) / kTile, threads, [&](int64_t tile) {
    const int64_t first = tile * kTile;
    decode_rows(packed, first, std::min(kTile, packed.shape.rows - first),
                out + first * packed.shape.cols);
  });
  return weight;
}

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
                       request.model);
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
        const LayerReport worst = quantize_block(b, rope);
        char text[128];
        std::snprintf(text, sizeof(text), "block %ld: largest error %.4f", static_cast<long>(b),
                      worst.error);
        progress.step(text);
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
      const SafetensorsFile file(directory_->partial() / journal_.hidden.name);
      for (int64_t i = 0; i < tokens.rows; ++i) {
        const TensorView* view = file.find(sequence_name(i));
        if (view == nullptr || view->dtype != DType::F32 || view->shape.size() != 2) {
          throw bad_input(file.path().string() + ": expected " + sequence_name(i));
        }
        const at::Tensor stored =
            at::from_blob(const_cast<std::byte*>(view->data.data()), view->shape, at::kFloat);
        hidden_.push_back(stored.clone().to(device_));
      }
      return;
    }
    for (int64_t i = 0; i < tokens.rows; ++i) {
      const std::span<const int32_t> ids(tokens.values.data() + i * tokens.cols,
                                         static_cast<size_t>(tokens.cols));
      hidden_.push_back(embed(model_.weights(), spec, ids).to(device_));
    }
    if (request_.method.nm.active() && request_.method.nm_alloc == "adaptive") {
      const Stopwatch forward(&report_.seconds.forward);
      const auto outliers =
          measure_outliers(model_, rope, hidden_, device_, forward_threads_, request_.quiet);
      for (const auto& [module, nm] : allocate_nm(outliers, request_.method.nm)) {
        journal_.nm[module] = nm.text();
      }
    }
  }

  static std::string sequence_name(int64_t i) {
    char text[32];
    std::snprintf(text, sizeof(text), "sequence.%06ld", static_cast<long>(i));
    return text;
  }

  LayerReport quantize_block(int64_t b, const Rope& rope) {
    const ModelSpec& spec = model_.spec();
    Block block = load_block(model_.weights(), spec, b, request_.threads, device_);
    CollectSeconds collect;
    const std::map<std::string, CalibrationStats> stats =
        collect_stats(spec, block, rope, hidden_, {.threads = forward_threads_}, &collect);
    report_.seconds.forward += collect.forward;
    report_.seconds.hessian += collect.hessian;

    JournalBlock done;
    std::vector<PackedLinear> packed;  // owns the bytes until the shard is written
    std::vector<TensorToWrite> tensors;
    Metadata metadata = {{"format", "pt"}, {"billm_format", std::to_string(kFormatVersion)}};
    packed.reserve(spec.family->linears.size());
    for (const std::string& group : spec.groups()) {
      std::optional<Hessian> hessian;
      {
        const Stopwatch quantize(&report_.seconds.quantize);
        hessian = make_hessian(stats.at(group), method_.needs_factor, request_.method.damping,
                               request_.threads);
        if (hessian->retries > 0) {
          log_warning("block " + std::to_string(b) + ", " + group + ": damping raised " +
                      std::to_string(hessian->retries) +
                      " times, to lambda = " + std::to_string(hessian->lambda));
        }
      }
      for (const LinearSpec& linear : spec.family->linears) {
        if (linear.group != group) continue;
        const std::string module = spec.module(b, linear);
        done.layers.push_back(
            quantize_layer(module, *hessian, &block.linears.at(linear.suffix), &packed));
        append_planes(packed.back(), module, &tensors, &metadata);
      }
    }
    {
      const Stopwatch pack(&report_.seconds.pack);
      const std::string name = shard_name(b, spec.blocks() + 1);
      done.shard.name = name;
      done.shard.sha256 = write_safetensors(directory_->partial() / name, tensors, metadata);
      done.shard.bytes =
          static_cast<int64_t>(std::filesystem::file_size(directory_->partial() / name));
    }
    advance(spec, block, rope, hidden_, forward_threads_, &report_.seconds.forward);
    const auto worst = std::max_element(
        done.layers.begin(), done.layers.end(),
        [](const LayerReport& x, const LayerReport& y) { return x.error < y.error; });
    const LayerReport result = *worst;
    journal_.blocks.push_back(std::move(done));
    commit(b);
    return result;
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

  // Quantizes, packs and decodes one weight; replaces it by what was decoded.
  LayerReport quantize_layer(const std::string& module, const Hessian& hessian, at::Tensor* weight,
                             std::vector<PackedLinear>* packed) {
    const at::Tensor original = weight->cpu().contiguous();
    LayerReport layer;
    layer.name = module;
    layer.rows = original.size(0);
    layer.cols = original.size(1);
    layer.damping = hessian.lambda;
    MethodConfig config = request_.method;
    config.threads = request_.threads;
    const auto allocated = journal_.nm.find(module);
    if (allocated != journal_.nm.end()) config.nm = parse_nm(allocated->second);
    layer.nm = config.nm.active() ? config.nm.text() : "";
    std::optional<QuantizedLinear> quantized;
    {
      const Stopwatch quantize(&report_.seconds.quantize);
      quantized = method_.quantize({original.const_data_ptr<float>(), layer.rows, layer.cols},
                                   hessian, config);
      layer.nominal_bits = method_.nominal_bits(*quantized);
      layer.salient_share = salient_share(*quantized);
      layer.region_shares = region_shares(*quantized);
      layer.integer_bits = quantized->shape.integer_bits;
    }
    at::Tensor decoded;
    {
      const Stopwatch pack_time(&report_.seconds.pack);
      packed->push_back(pack(*quantized));
      decoded = decode(packed->back(), request_.threads);
    }
    {
      const Stopwatch quantize(&report_.seconds.quantize);
      layer.stored_bits = packed->back().stored_bits();
      layer.error = layer_error(original, decoded, hessian, request_.threads);
    }
    *weight = decoded.to(device_);
    return layer;
  }

  // Stores the inputs of block b + 1, then the journal (from here on block b is done), then drops
  // the inputs of block b.
  void commit(int64_t b) {
    const Stopwatch pack(&report_.seconds.pack);
    const std::string old = journal_.hidden.name;
    std::vector<at::Tensor> copies;
    std::vector<TensorToWrite> tensors;
    for (size_t i = 0; i < hidden_.size(); ++i) {
      copies.push_back(hidden_[i].cpu().contiguous());
      const at::Tensor& copy = copies.back();
      tensors.push_back({sequence_name(static_cast<int64_t>(i)),
                         DType::F32,
                         {copy.size(0), copy.size(1)},
                         std::as_bytes(std::span(copy.const_data_ptr<float>(),
                                                 static_cast<size_t>(copy.numel())))});
    }
    journal_.hidden.name = "hidden-" + std::to_string(b + 1) + ".safetensors";
    const std::filesystem::path path = directory_->partial() / journal_.hidden.name;
    journal_.hidden.sha256 = write_safetensors(path, tensors);
    journal_.hidden.bytes = static_cast<int64_t>(std::filesystem::file_size(path));
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
    }
    report_.method = method_.name;
    report_.nominal_bits = nominal / weights;
    report_.stored_bits = stored / weights;
  }

  // The tensors that are not quantized, as they are, in the last shard.
  WrittenFile write_rest(const std::string& name) {
    const Checkpoint& source = model_.checkpoint();
    std::vector<TensorToWrite> tensors;
    std::set<std::string> quantized;
    for (const LayerReport& layer : report_.layers) quantized.insert(layer.name + ".weight");
    for (const std::string& tensor : source.names()) {
      if (quantized.count(tensor) > 0) continue;
      const TensorView& view = source.tensor(tensor);
      tensors.push_back({tensor, view.dtype, view.shape, view.data});
    }
    WrittenFile file{name, "", 0};
    file.sha256 = write_safetensors(directory_->partial() / name, tensors, {{"format", "pt"}});
    file.bytes = static_cast<int64_t>(std::filesystem::file_size(directory_->partial() / name));
    return file;
  }

  void write_config() {
    nlohmann::ordered_json config = nlohmann::ordered_json::parse(
        read_text_file(model_.checkpoint().directory() / "config.json"));
    const MethodConfig& method = request_.method;
    config["quantization_config"] = {
        {"quant_method", "billm"},
        {"format_version", kFormatVersion},
        {"method", method.method},
        {"block_size", method.block_size},
        {"nm", method.nm.active() ? nlohmann::ordered_json(method.nm.text())
                                  : nlohmann::ordered_json(nullptr)},
        {"nominal_bits", report_.nominal_bits},
        {"stored_bits", report_.stored_bits},
        {"modules_not_quantized", modules_not_quantized()}};
    write_file_atomic(directory_->partial() / "config.json", config.dump(2) + "\n");
  }

  nlohmann::ordered_json modules_not_quantized() const {
    nlohmann::ordered_json modules = nlohmann::ordered_json::array();
    if (!model_.spec().config.tie_word_embeddings) modules.push_back("lm_head");
    return modules;
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
      files.push_back(write_rest(shards.back()));
      write_index(partial, shards);
      write_config();
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
  std::vector<at::Tensor> hidden_;  // [tokens, hidden] per sequence, on device_
  QuantizeReport report_;
};

}  // namespace

QuantizeReport quantize_model(const QuantizeRequest& request) {
  check_config(request.method);
  init_torch();
  const at::NoGradGuard no_grad;
  return Run(request).run();
}

}  // namespace billm
