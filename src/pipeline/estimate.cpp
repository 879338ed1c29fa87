// See include/billm/pipeline/estimate.h. The counts follow the code they speak of: collect.h,
// block.h, hessian.h, block_quantizer.cpp.
#include "billm/pipeline/estimate.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "allocation.h"
#include "billm/base/error.h"
#include "billm/base/parallel.h"
#include "billm/base/progress.h"
#include "billm/calibrate/collect.h"
#include "billm/model/family.h"
#include "billm/model/model_bits.h"
#include "billm/model/runtime.h"
#include "billm/pipeline/learn_estimate.h"
#include "billm/quantize/methods.h"
#include "checked_plan.h"
#include "collect_needs.h"
#include "embedding_rows.h"
#include "layer_costs.h"
#include "target_bits.h"

namespace billm {
namespace {

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
  bytes.stored += weights * weight_bytes(spec.config);
  return bytes;
}

// The bytes of the mask in one layer's attention (block.h).
int64_t mask_bytes(const ModelConfig& config, int64_t length) {
  const bool slides = std::any_of(config.windows.begin(), config.windows.end(),
                                  [&](int64_t window) { return window > 0 && window < length; });
  return slides ? 5 * length * length : 0;
}

}  // namespace

Estimate estimate_quantize(const EstimateRequest& request) {
  check_config(request.method);
  init_torch();
  const ModelSpec spec = model_spec(request.model, request.where);
  check_length(spec, request.length);
  const LayerPlan plan = checked_plan(spec, request.method, request.plan, request.plan_source,
                                      request.target_bits, request.tune.has_value());
  warn_of_planned_bits(spec, request.method, plan);
  const ModelConfig& config = spec.config;
  check_embedding_bits(request.embedding_bits, spec.head == spec.embed, request.where);
  const c10::Device device = resolve_device(request.device);
  const int64_t idle_bytes = peak_rss_bytes();
  double weights = 0;
  for (const LinearSpec& linear : spec.family->linears) {
    weights += static_cast<double>(spec.blocks()) * static_cast<double>(linear.out_width(config)) *
               static_cast<double>(linear.in_width(config));
  }
  constexpr double kMostWeights = 1e15;
  if (weights > kMostWeights) {
    char text[32];
    std::snprintf(text, sizeof(text), "%.3g", weights);
    throw bad_input(request.where + ": expected at most 1e15 weights in the blocks, got " + text);
  }
  const LayerCosts costs(spec, request.method, plan, device, request.threads);

  Estimate estimate;
  estimate.blocks = spec.blocks();
  estimate.probe_seconds = costs.probe_seconds();
  const auto tokens = static_cast<double>(request.sequences * request.length);
  int64_t block_weights = 0, largest = 0, widest = 0;
  for (const LinearSpec& linear : spec.family->linears) {
    const int64_t rows = linear.out_width(config), cols = linear.in_width(config);
    block_weights += rows * cols;
    largest = std::max(largest, rows * cols);
    widest = std::max(widest, cols);
  }
  double coding = 0, packed_bytes = 0, block_packed_bytes = 0;  // of the largest packed block
  for (int64_t b = 0; b < spec.blocks(); ++b) {
    double here = 0;
    for (const LinearSpec& linear : spec.family->linears) {
      here += costs.packed_bytes(b, linear);
      coding += costs.seconds(b, linear);
    }
    coding += costs.factor_seconds(b);
    packed_bytes += here;
    block_packed_bytes = std::max(block_packed_bytes, here);
  }
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
  if (request.target_bits) {
    packed_bytes = *request.target_bits / 8 * static_cast<double>(estimate.weights);
    // Blocks differ by a bit a weight at most.
    block_packed_bytes += static_cast<double>(block_weights) / 8;
  }
  const int64_t packed = std::llround(packed_bytes),
                block_packed = std::llround(block_packed_bytes);
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
  int64_t quantizing = collect.target_bytes;
  for (const MethodConfig& own : costs.configs()) {
    quantizing =
        std::max(quantizing, quantizing_bytes(find_method(own.method), own, widest, largest));
  }
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
      blocks * costs.products(
                   tokens * (2.0 * collect.passed_weights + attention * collect.passed_attention));
  // A multiplication and an addition each.
  estimate.hessian_seconds = blocks * costs.products(2 * tokens * collect.summed);
  estimate.quantize_seconds = coding + blocks * costs.targets(collect.target_flops);
  if (request.tune) {
    const TuneNeeds needs =
        tune_needs(spec, *request.tune, request.method, request.sequences, request.length,
                   costs.rate(), device.is_cpu() ? request.threads : 1);
    estimate.tune_seconds = blocks * needs.seconds;
    // The block in fp32 and the sums of all groups stay for the report of the layers' errors.
    const int64_t on_host = idle_bytes + here + 4 * sums + 2 * block_packed + needs.host_bytes +
                            (device.is_cpu() ? needs.device_bytes : 0);
    estimate.cpu_bytes = std::max(estimate.cpu_bytes, on_host);
    estimate.gpu_bytes =
        std::max(estimate.gpu_bytes, 8 * block_weights + 8 * sums + needs.device_bytes);
  }
  if (request.target_bits) {
    const auto gain_tokens =
        static_cast<double>(std::min(request.sequences, kGainWindows) * request.length);
    // The teacher's pass, forward, forward again and backward, which is two.
    const double operations = 2.0 * static_cast<double>(estimate.weights) + blocks * attention;
    estimate.plan_seconds = estimate.forward_seconds + estimate.hessian_seconds +
                            estimate.quantize_seconds +
                            costs.products(5 * gain_tokens * operations);
    // The uniform result, whose embeddings are as they were.
    estimate.disk_bytes += packed + estimate.other_weights * weight_bytes(config);
    // Of its pass, for each window at once: hidden states between all blocks, a forward pass, the
    // gradients of a block and the change of its largest linear; and two blocks.
    const int64_t windows = std::min<int64_t>({threads, request.sequences, kGainWindows});
    const int64_t gain_bytes =
        4 * block_weights * (2 + windows) +
        windows * (4 * request.length * hidden * (estimate.blocks + 2) + 3 * pass + 8 * largest);
    estimate.gpu_bytes = std::max(estimate.gpu_bytes, gain_bytes);
    const int64_t gaining = idle_bytes + (device.is_cpu() ? gain_bytes : 0);
    estimate.cpu_bytes = std::max(estimate.cpu_bytes, gaining);
  }
  estimate.total_seconds = estimate.plan_seconds + estimate.forward_seconds +
                           estimate.hessian_seconds + estimate.quantize_seconds +
                           estimate.tune_seconds;
  return estimate;
}

}  // namespace billm
