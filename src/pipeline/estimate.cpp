// See include/billm/pipeline/estimate.h. The counts follow the code they speak of: collect.h,
// block.h, hessian.h, block_quantizer.cpp.
#include "billm/pipeline/estimate.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <vector>

#include "allocation.h"
#include "billm/base/error.h"
#include "billm/base/parallel.h"
#include "billm/base/progress.h"
#include "billm/base/stopwatch.h"
#include "billm/calibrate/collect.h"
#include "billm/model/family.h"
#include "billm/model/model_bits.h"
#include "billm/model/runtime.h"
#include "billm/model/weights.h"
#include "billm/pack/packed_layer.h"
#include "billm/pipeline/learn_estimate.h"
#include "billm/quantize/methods.h"
#include "billm/quantize/rotated.h"
#include "billm/quantize/targets.h"
#include "block_quantizer.h"
#include "collect_needs.h"
#include "embedding_rows.h"
#include "gpu_accelerator.h"
#include "kernels/cuda/load.h"
#include "layer_error.h"

namespace billm {
namespace {

// A random layer with inputs of unequal size, as real ones have.
struct ProbeLayer {
  ProbeLayer(int64_t rows, int64_t cols)
      : weight(at::empty({rows, cols}, at::kFloat)), stats{.width = cols, .tokens = 2 * cols} {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    float* w = weight.mutable_data_ptr<float>();
    for (int64_t i = 0; i < rows * cols; ++i) w[i] = 0.02f * normal(random);
    at::Tensor x = at::empty({2 * cols, cols}, at::kFloat);
    float* data = x.mutable_data_ptr<float>();
    for (int64_t i = 0; i < 2 * cols * cols; ++i) {
      data[i] = normal(random) * (i % cols % 37 == 0 ? 4.0f : 1.0f);
    }
    const at::Tensor xtx = at::mm(x.t(), x);
    const float* values = xtx.const_data_ptr<float>();
    stats.xtx.assign(values, values + cols * cols);
  }
  at::Tensor weight;
  CalibrationStats stats;
};

struct LayerSeconds {
  double factor = 0, coding = 0;  // coding: method, packing, decoding, error
};

// Two sizes of a layer with which the seconds of its coding grow.
struct Work {
  double first = 0, second = 0;
};

// Rates of this machine, and a packed layer of the method.
class Probe {
 public:
  // `widths`: of the layers; those up to wide_ are tried as they are, since a narrow layer has more
  // salient columns in each of its blocks.
  Probe(const EstimateRequest& request, const std::set<int64_t>& widths, c10::Device device)
      : request_(request), method_(find_method(request.method.method)), device_(device) {
    const Stopwatch clock;
    const at::NoGradGuard no_grad;
    const auto threads = static_cast<unsigned>(request.threads);
    if (!device.is_cpu()) {
      std::string why;  // quantize_model() says it
      accelerator_.emplace(device, kernels::cuda::load_cuda_kernels(&why));
      quantize(kTileRows, kTileRows);  // starts the device's libraries
    }
    // A power of two, so that output rotations are fast ones. Of products, whose rank grows with
    // the rows, as small as threads are still worth starting.
    const int64_t rows = product() ? kNarrow : static_cast<int64_t>(std::bit_ceil(128u * threads));
    const LayerSeconds narrow = quantize(rows, kNarrow), wide = quantize(rows, wide_);
    packed_.emplace(wide_, std::move(last_));
    for (const int64_t width : widths) {
      if (width >= wide_ || packed_.count(width) > 0) continue;
      quantize(rows, width);
      packed_.emplace(width, std::move(last_));
    }
    factor_ = wide.factor / std::pow(wide_, 3);
    const Work n = work(rows, kNarrow), w = work(rows, wide_);
    second_ = std::max(0.0, (wide.coding * n.first - narrow.coding * w.first) /
                                (w.second * n.first - n.second * w.first));
    first_ = std::max(0.0, (narrow.coding - second_ * n.second) / n.first);
    flops_ = product_rate(device, request.threads);
    if (request.method.targets == Targets::kCorrected) measure_targets(rows);
    seconds = clock.seconds();
  }

  // Seconds of one layer, and of the factor of one input.
  double coding(int64_t rows, int64_t cols) const {
    const Work size = work(rows, cols);
    return first_ * size.first + second_ * size.second;
  }
  double factor(int64_t width) const {
    return method_.needs_factor ? factor_ * std::pow(width, 3) : 0;
  }
  double products(double operations) const { return operations / flops_; }
  // Of corrected targets, computed in double on the CPU.
  double targets(double operations) const { return operations / target_flops_; }
  double rate() const { return flops_; }
  int64_t packed_bytes(int64_t rows, int64_t cols) const {
    const auto found = packed_.find(cols);
    return scaled_bytes(found != packed_.end() ? found->second : packed_.at(wide_), rows, cols);
  }

  double seconds = 0;

 private:
  static constexpr int64_t kTileRows = 64, kNarrow = 512;

  bool product() const { return method_.rank != nullptr; }

  // Planes alone: weights; weights times columns (feedback, error). Products: the eigenvectors of
  // H; a step's products of matrices.
  Work work(int64_t rows, int64_t cols) const {
    const auto n = static_cast<double>(rows), m = static_cast<double>(cols);
    if (!product()) return {n * m, n * m * m};
    return {m * m * m,
            n * m * static_cast<double>(method_.rank({rows, cols}, request_.method.bits))};
  }

  void measure_targets(int64_t rows) {
    ProbeLayer layer(rows, kNarrow);
    layer.stats.cross = layer.stats.xtx;
    const WeightView weight = {layer.weight.const_data_ptr<float>(), rows, kNarrow};
    const Stopwatch clock;
    corrected_targets({&weight, 1}, layer.stats, request_.method, request_.threads);
    target_flops_ = target_operations(rows, kNarrow) / clock.seconds();
  }

  // Leaves the packed layer in last_.
  LayerSeconds quantize(int64_t rows, int64_t cols) {
    ProbeLayer layer(rows, cols);
    LayerSeconds result;
    LayerRotation rotation;
    if (request_.method.rotate != RotatedSides::kNone) rotation.in = Rotation{cols};
    if (request_.method.rotate == RotatedSides::kBoth) rotation.out = Rotation{rows};
    const Stopwatch factor;
    const std::vector<uint8_t> dead = dead_columns(layer.stats);
    if (rotation.in) rotate_stats(*rotation.in, request_.threads, &layer.stats);
    const Accelerator* const accelerator = accelerator_ ? &*accelerator_ : nullptr;
    const Hessian hessian = make_hessian(std::move(layer.stats), method_.needs_factor,
                                         request_.method.damping, request_.threads, accelerator);
    result.factor = factor.seconds();
    const QuantizeContext context = {.threads = request_.threads, .accelerator = accelerator};
    const Stopwatch coding;
    WeightView weight = {layer.weight.const_data_ptr<float>(), rows, cols};
    std::vector<float> rotated;
    if (rotation.in) {
      rotated = rotate_weight(weight, dead, rotation, request_.threads);
      weight.data = rotated.data();
    }
    last_ = pack(method_.quantize(weight, hessian, request_.method, context), request_.threads);
    const at::Tensor decoded = decode_weight(last_, "probe", request_.threads);
    layer_error(layer.weight, decoded, hessian_matrix(hessian, device_), request_.threads);
    result.coding = coding.seconds();
    return result;
  }

  const EstimateRequest& request_;
  const Method& method_;
  const c10::Device device_;
  const int64_t wide_ = product() ? 1024 : 2048;
  std::optional<GpuAccelerator> accelerator_;  // not on a CPU
  double factor_ = 0, first_ = 0, second_ = 0, flops_ = 1, target_flops_ = 1;
  PackedLayer last_;
  std::map<int64_t, PackedLayer> packed_;  // by width
};

int64_t dtype_size(const ModelConfig& config) {
  return config.torch_dtype == "float32" ? 4 : config.torch_dtype == "float64" ? 8 : 2;
}

// Besides the matrix H: the doubles that become its factor; then the factor, the triangles of its
// blocks and what the method adds; codes, the decoded and the packed weight.
int64_t quantizing_bytes(const Method& method, const MethodConfig& config, int64_t width,
                         int64_t weights) {
  // A rotated weight, while it is quantized; of the original and the decoded one for the error.
  if (config.rotate != RotatedSides::kNone) weights += weights / 2;
  if (!method.needs_factor) return 8 * weights;
  const int64_t square = width * width;
  int64_t coding = 4 * square + 8 * width * std::min<int64_t>(config.block_size, width);
  coding += method.square_bytes * square + method.weight_bytes * weights;
  return std::max(8 * square, coding) + 8 * weights;
}

// What is outside of the blocks' linears: in the file, and while it is rounded.
struct OutsideBytes {
  int64_t stored = 0, rounding = 0;
};
OutsideBytes outside_bytes(const ModelSpec& spec, const EmbeddingBits& bits, int64_t weights) {
  const int64_t rows = spec.config.vocab_size, cols = spec.config.embed_width;
  OutsideBytes bytes;
  const auto count = [&](int wanted) {
    if (wanted == kAsItIs) return;
    weights -= rows * cols;
    const int64_t packed = integer_rows_bytes(rows, cols, wanted);
    bytes.stored += packed;
    bytes.rounding += packed + kRoundedPieceBytes;
  };
  count(bits.embedding);
  count(bits.head_bits());
  bytes.stored += weights * dtype_size(spec.config);
  return bytes;
}

// The bytes of the mask in one layer's attention (block.h).
int64_t mask_bytes(const ModelConfig& config, int64_t length) {
  const bool slides = std::any_of(config.windows.begin(), config.windows.end(),
                                  [&](int64_t window) { return window > 0 && window < length; });
  return slides ? 5 * length * length : 0;
}

// The bytes of all packed layers, by the plan of a method that makes one.
std::optional<int64_t> planned_bytes(const ModelSpec& spec, const MethodConfig& config) {
  const std::map<std::string, double> planned = plan_bits(spec, config);
  if (planned.empty()) return {};
  double bits = 0;
  for (int64_t b = 0; b < spec.blocks(); ++b) {
    for (const LinearSpec& linear : spec.family->linears) {
      bits += planned.at(spec.module(b, linear)) *
              static_cast<double>(linear.out_width(spec.config)) *
              static_cast<double>(linear.in_width(spec.config));
    }
  }
  return std::llround(bits / 8);
}

}  // namespace

Estimate estimate_quantize(const EstimateRequest& request) {
  check_config(request.method);
  init_torch();
  const ModelSpec spec = model_spec(request.model, request.where);
  check_length(spec, request.length);
  check_rotations(spec, request.method);
  const ModelConfig& config = spec.config;
  check_embedding_bits(request.embedding_bits, spec.head == spec.embed, request.where);
  const c10::Device device = resolve_device(request.device);
  const int64_t idle_bytes = peak_rss_bytes();
  const Method& method = find_method(request.method.method);
  std::set<int64_t> layer_widths;
  double weights = 0;
  for (const LinearSpec& linear : spec.family->linears) {
    layer_widths.insert(linear.in_width(config));
    weights += static_cast<double>(spec.blocks()) * static_cast<double>(linear.out_width(config)) *
               static_cast<double>(linear.in_width(config));
  }
  constexpr double kMostWeights = 1e15;
  if (weights > kMostWeights) {
    char text[32];
    std::snprintf(text, sizeof(text), "%.3g", weights);
    throw bad_input(request.where + ": expected at most 1e15 weights in the blocks, got " + text);
  }
  // What a plan says is stored needs no packed layer of each width.
  const std::optional<int64_t> planned = planned_bytes(spec, request.method);
  const Probe probe(request, planned ? std::set<int64_t>() : layer_widths, device);

  Estimate estimate;
  estimate.blocks = spec.blocks();
  estimate.probe_seconds = probe.seconds;
  const auto tokens = static_cast<double>(request.sequences * request.length);
  std::map<std::string, int64_t> widths;  // by input group
  int64_t block_weights = 0, block_packed = 0, largest = 0, widest = 0;
  double coding = 0;
  for (const LinearSpec& linear : spec.family->linears) {
    const int64_t rows = linear.out_width(config), cols = linear.in_width(config);
    widths[linear.group] = cols;
    block_weights += rows * cols;
    if (!planned) block_packed += probe.packed_bytes(rows, cols);
    largest = std::max(largest, rows * cols);
    widest = std::max(widest, cols);
    coding += probe.coding(rows, cols);
  }
  double factors = 0;
  for (const auto& [group, width] : widths) factors += probe.factor(width);
  const bool tuned = request.tune.has_value();
  const int64_t hidden = config.hidden_size;
  const int streams = hidden_streams(request.method, tuned);
  estimate.hidden_bytes = streams * 4 * request.sequences * request.length * hidden;
  estimate.hidden_place =
      choose_hidden_place(estimate.hidden_bytes, beside_hidden_states(spec), device, 1);
  int64_t points_bytes =
      request.sequences * request.length * point_bytes(spec, request.method, request.sequential);
  const bool keeps =
      keeps_points(estimate.hidden_bytes, points_bytes, estimate.hidden_place, spec, device, 1);
  if (!keeps) points_bytes = 0;
  const CollectNeeds collect =
      collect_needs(spec, request.method, request.sequential, tuned, keeps);
  const int64_t sums = collect.sums, input_bytes = collect.token_bytes * request.length;

  estimate.weights = estimate.blocks * block_weights;
  estimate.other_weights = other_weights(spec);
  if (planned) block_packed = *planned / estimate.blocks;
  const int64_t packed = planned.value_or(estimate.blocks * block_packed);
  estimate.stored_bits = 8.0 * static_cast<double>(packed) / static_cast<double>(estimate.weights);
  const OutsideBytes outside = outside_bytes(spec, request.embedding_bits, estimate.other_weights);
  estimate.output_bytes = packed + outside.stored;
  estimate.file_bits = file_bits(estimate.output_bytes, estimate.weights + estimate.other_weights);
  // The inputs of a block stay there until those of the next one have been written.
  estimate.disk_bytes = estimate.output_bytes + 2 * estimate.hidden_bytes;

  // Block in fp32; the sums of all groups; then either a pass (a part's sums, stored inputs,
  // forward passes) or the widest layer (quantizing_bytes).
  const int64_t q = config.num_attention_heads * config.head_dim;
  const int64_t kv = config.num_key_value_heads * config.head_dim;
  const int64_t pass =  // include/billm/model/block.h
      mask_bytes(config, request.length) +
      4 * request.length *
          std::max(hidden + 3 * q + 2 * kv, 2 * hidden + 2 * config.intermediate_size);
  const int threads = device.is_cpu() ? request.threads : 1;
  const int64_t part = (request.sequences + kSumParts - 1) / kSumParts;
  const int64_t stored_inputs =
      std::max(input_bytes, std::min(CollectOptions{}.input_bytes, input_bytes * part));
  constexpr int64_t kThreadBytes = int64_t{40} << 20;  // block.h: C library and MKL
  const int64_t collecting = 4 * sums + stored_inputs + threads * (pass + kThreadBytes);
  const int64_t quantizing =
      std::max(collect.target_bytes, quantizing_bytes(method, request.method, widest, largest));
  // On a GPU: the page-locked copies of the next block, whose sizes are rounded to powers of two.
  int64_t here = device.is_cpu() ? 4 * block_weights : 8 * block_weights + 4 * largest;
  // The original beside what becomes of it.
  if (device.is_cpu() && streams > 1) here += 4 * block_weights;
  // The packed block before is being written.
  estimate.cpu_bytes =
      idle_bytes + here + 4 * sums + std::max(collecting, quantizing) + 2 * block_packed;
  if (estimate.hidden_place == HiddenPlace::kMemory) {
    estimate.cpu_bytes += estimate.hidden_bytes + points_bytes;
  }
  estimate.cpu_bytes = std::max(estimate.cpu_bytes, idle_bytes + outside.rounding);
  // Two blocks, since the next one is loaded ahead; then the sums of all groups and of a part,
  // stored inputs and a pass; or the widest factor (gpu_accelerator.h), or the largest layer's
  // factor, H, weights and codes (coder_layer.h, layer_error.h).
  const int64_t square = widest * widest;
  estimate.gpu_bytes = 8 * block_weights +
                       std::max({8 * sums + stored_inputs + 2 * pass + 4 * request.length * hidden,
                                 32 * square, 8 * square + 16 * largest});
  if (estimate.hidden_place == HiddenPlace::kDevice) {
    estimate.gpu_bytes += estimate.hidden_bytes + points_bytes;
  }

  const auto blocks = static_cast<double>(estimate.blocks);
  // Causal attention looks at half of the pairs: two products of them.
  const double attention = 2.0 * static_cast<double>(request.length * q);
  estimate.forward_seconds =
      blocks * probe.products(
                   tokens * (2.0 * collect.passed_weights + attention * collect.passed_attention));
  // A multiplication and an addition each.
  estimate.hessian_seconds = blocks * probe.products(2 * tokens * collect.summed);
  estimate.quantize_seconds = blocks * (coding + factors + probe.targets(collect.target_flops));
  if (request.tune) {
    const TuneNeeds needs =
        tune_needs(spec, *request.tune, request.method, request.sequences, request.length,
                   probe.rate(), device.is_cpu() ? request.threads : 1);
    estimate.tune_seconds = blocks * needs.seconds;
    // The block in fp32 and the sums of all groups stay for the report of the layers' errors.
    const int64_t on_host = idle_bytes + here + 4 * sums + 2 * block_packed + needs.host_bytes +
                            (device.is_cpu() ? needs.device_bytes : 0);
    estimate.cpu_bytes = std::max(estimate.cpu_bytes, on_host);
    estimate.gpu_bytes =
        std::max(estimate.gpu_bytes, 8 * block_weights + 8 * sums + needs.device_bytes);
  }
  estimate.total_seconds = estimate.forward_seconds + estimate.hessian_seconds +
                           estimate.quantize_seconds + estimate.tune_seconds;
  return estimate;
}

}  // namespace billm
