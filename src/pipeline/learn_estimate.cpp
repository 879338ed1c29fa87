// See include/billm/pipeline/learn_estimate.h. The counts follow src/learn/.
#include "billm/pipeline/learn_estimate.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <algorithm>

#include "billm/base/error.h"
#include "billm/base/parallel.h"
#include "billm/base/progress.h"
#include "billm/base/stopwatch.h"
#include "billm/learn/distill.h"
#include "billm/model/model.h"
#include "billm/model/model_bits.h"
#include "billm/model/runtime.h"
#include "factor_counts.h"

namespace billm {
namespace {

// What a pass takes beyond its matrix products (norms, softmax, small operands), as a factor:
// tuning the demo model's first blocks ran at 62 GFLOP/s where product_rate() says 95 (one thread
// of an AMD EPYC; docs/measurements/learning.md).
constexpr double kBesideProducts = 1.5;
// Moving a weight's latent, decoding it and its share of the scales' gradients, in operations of a
// product (3 ns).
constexpr double kUpdateOperations = 300;
constexpr int64_t kThreadBytes = int64_t{40} << 20;  // block.h: C library and MKL

struct BlockCounts {
  explicit BlockCounts(const ModelSpec& spec) {
    const ModelConfig& config = spec.config;
    for (const LinearSpec& linear : spec.family->linears) {
      const int64_t weights = linear.out_width(config) * linear.in_width(config);
      all += weights;
      if (linear.role == LinearRole::kKey || linear.role == LinearRole::kValue) {
        of_keys += weights;
      }
    }
    queries = config.num_attention_heads * config.head_dim;
    keys = config.num_key_value_heads * config.head_dim;
    hidden = config.hidden_size;
    intermediate = config.intermediate_size;
  }

  // Operations of a forward pass that makes the outputs of `tokens` tokens, with `context` tokens
  // including them. A backward pass takes twice as many.
  double forward(double tokens, double context) const {
    return kBesideProducts * (2 * (static_cast<double>(all - of_keys) * tokens +
                                   static_cast<double>(of_keys) * context) +
                              4 * static_cast<double>(queries) * tokens * context);
  }
  // Bytes that autograd keeps of such a pass, and its temporaries.
  int64_t recorded(int64_t tokens, int64_t context) const {
    return 4 * (tokens * (8 * hidden + 6 * queries + 6 * intermediate) +
                context * (3 * hidden + 4 * keys));
  }

  int64_t all = 0, of_keys = 0;
  int64_t queries = 0, keys = 0, hidden = 0, intermediate = 0;
};

// Items of equal work on so many threads, as a number of items one after another.
double in_turn(double items, int threads) {
  return items / std::min<double>(std::max(items, 1.0), threads);
}

}  // namespace

double product_rate(c10::Device device, int threads) {
  constexpr int64_t kTokens = 512, kWidth = 2048;
  if (!device.is_cpu()) threads = 1;
  const at::Tensor a = at::empty({kTokens, kWidth}, at::kFloat).fill_(0.5).to(device);
  const at::Tensor b = at::empty({kWidth, kWidth}, at::kFloat).fill_(0.25).to(device);
  int64_t products = 0;
  double seconds = 0;
  for (int round = 0; round < 64 && seconds < 0.4; ++round) {
    const Stopwatch clock;
    parallel_for(threads, threads, [&](int64_t) {
      const at::NoGradGuard no_grad;
      at::mm(a, b).narrow(1, 0, 1).cpu();  // the copy waits for a device
    });
    if (round == 0) continue;  // a warm-up
    seconds += clock.seconds();
    products += threads;
  }
  return 2.0 * kTokens * kWidth * kWidth * static_cast<double>(products) / seconds;
}

TuneNeeds tune_needs(const ModelSpec& spec, const TuneConfig& config, const MethodConfig& method,
                     int64_t sequences, int64_t length, double rate, int threads) {
  const BlockCounts block(spec);
  const int64_t window = std::min(config.window, length);
  const int64_t windows = sequences * ((length + window - 1) / window);
  const int64_t held_out = std::max<int64_t>(1, windows / 8);
  const int64_t batch = std::min<int64_t>(config.batch, std::max<int64_t>(1, windows - held_out));
  const auto tokens = static_cast<double>(window);
  // On average a window stands in the middle of its sequence.
  const double pass = block.forward(tokens, 0.5 * static_cast<double>(length + window));
  const FactorCounts factors = factor_counts(spec, method);
  // Products of planes are computed by one thread: for the pass, again for the gradients, and twice
  // back.
  const double update =
      kUpdateOperations * static_cast<double>(factors.latents) / threads + 4 * factors.products;
  const double whole = static_cast<double>(sequences * length);
  const double originals =  // the original block passes on the original stream
      block.forward(whole, whole) / threads;
  TuneNeeds needs;
  needs.seconds =
      (config.steps * (3 * pass * in_turn(static_cast<double>(batch), threads) + update) +
       (kTuneChecks + 1) * pass * in_turn(static_cast<double>(held_out), threads) + originals) /
      (rate / threads);
  const int64_t passes = std::min<int64_t>(batch, threads);
  // Latents, two moments, levels of the best state and masks; the decoded weight, the gradients of
  // the windows.
  needs.device_bytes = (3 * 4 + 2) * factors.latents + (4 + 4 * batch) * block.all +
                       factors.temporary_bytes + 2 * 4 * sequences * length * block.hidden +
                       passes * (block.recorded(window, length) + kThreadBytes);
  needs.host_bytes = 4 * factors.latents + 4 * block.all;  // codes, twice; the original weights
  return needs;
}

DistillEstimate estimate_distill(const DistillRequest& request, int64_t sequences, int64_t length) {
  init_torch();
  const Stopwatch clock;
  const at::NoGradGuard no_grad;
  const c10::Device device = resolve_device(request.device);
  const int threads = device.is_cpu() ? request.threads : 1;
  const int64_t idle_bytes = peak_rss_bytes();
  const Model packed(request.model, request.threads);
  if (packed.packed() == nullptr) {
    throw bad_input(request.model.string() + ": is not a packed model",
                    "give the directory that billm quantize wrote");
  }
  const ModelSpec& spec = packed.spec();
  const DistillConfig& config = request.config;
  const double rate = product_rate(device, threads);
  const BlockCounts block(spec);
  const auto blocks = static_cast<double>(spec.blocks());
  const int64_t window = std::min(config.window, length);
  const int64_t windows = sequences * ((length + window - 1) / window);
  const int64_t held_out = std::max<int64_t>(1, windows / 8);
  const int64_t batch = std::min<int64_t>(config.batch, std::max<int64_t>(1, windows - held_out));
  const auto tokens = static_cast<double>(window);
  const double model_pass = blocks * block.forward(tokens, tokens);
  const double head = kBesideProducts * 2 * static_cast<double>(spec.config.vocab_size) *
                      static_cast<double>(spec.config.embed_width) * tokens;
  const FactorCounts factors = factor_counts(*packed.packed());

  DistillEstimate estimate;
  estimate.weights = quantized_weights(spec);
  const double each = rate / threads;  // of a thread
  estimate.teacher_seconds = model_pass * in_turn(static_cast<double>(windows), threads) / each;
  // Forward; forward again and backward; logits of both models and the gradient back.
  estimate.training_seconds =
      config.steps *
      ((4 * model_pass + 3 * head) * in_turn(static_cast<double>(batch), threads) +
       kUpdateOperations * static_cast<double>(factors.latents) / threads + 5 * factors.products) /
      each;
  estimate.held_out_seconds = (kTuneChecks + 1) * (model_pass + 2 * head) *
                              in_turn(static_cast<double>(held_out), threads) / each;
  estimate.total_seconds =
      estimate.teacher_seconds + estimate.training_seconds + estimate.held_out_seconds;

  // Scales: their logarithms and moments, those of the start, of now and of the best state.
  int64_t scales = 0;
  for (const std::string& module : packed.packed()->names()) {
    for (const PackedFactor& factor : packed.packed()->description(module).factors) {
      const auto* trellis = std::get_if<PackedTrellis>(&factor);
      if (trellis != nullptr) scales += trellis->format.rows;
      const auto* planes = std::get_if<PackedPlanes>(&factor);
      if (planes == nullptr) continue;
      const RegionFormat& format = planes->shape;
      scales += format.regions() * format.groups() * format.rows;
      if (format.column_scales) scales += format.cols;
    }
  }
  const DistillBytes codes = distill_bytes(factors.latents, config);
  const int64_t passes = std::min<int64_t>(batch, threads);
  const int64_t all_tokens = sequences * length;
  const int64_t on_device =
      codes.device + factors.temporary_bytes + 4 * 6 * scales + 4 * (2 + batch) * block.all +
      4 * all_tokens * spec.config.embed_width +                     // the teacher's states
      4 * std::max(all_tokens * block.hidden,                        // on the teacher's way
                   batch * spec.blocks() * window * block.hidden) +  // between the blocks
      passes * (std::max(block.recorded(window, window),
                         4 * 5 * int64_t{128} * spec.config.vocab_size + 2 * kHeadPieceBytes) +
                (device.is_cpu() ? kThreadBytes : 0));
  estimate.gpu_bytes = on_device;
  estimate.cpu_bytes = idle_bytes + codes.host + (device.is_cpu() ? on_device : 0);
  estimate.output_bytes = checkpoint_bytes(packed.checkpoint());
  const int64_t state =
      3 * 4 * scales + 4 * scales + (config.code_rate > 0 ? 3 * 4 + 1 : 0) * factors.latents;
  estimate.disk_bytes = std::max(estimate.output_bytes + state, 2 * state);
  estimate.probe_seconds = clock.seconds();
  return estimate;
}

}  // namespace billm
