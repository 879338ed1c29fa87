// Perplexity and KL: see include/billm/eval/perplexity.h.
#include "billm/eval/perplexity.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/log_softmax.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <span>
#include <vector>

#include "billm/base/error.h"
#include "billm/base/parallel.h"
#include "billm/base/progress.h"
#include "billm/calibrate/collect.h"
#include "billm/model/block.h"
#include "billm/model/model.h"
#include "billm/model/model_bits.h"
#include "billm/model/running_device.h"
#include "billm/model/runtime.h"

namespace billm {
namespace {

// Sums over the predictions of one window.
struct WindowLoss {
  double nll = 0, kl = 0;
};

class Evaluation {
 public:
  Evaluation(const EvalRequest& request, int threads, c10::Device device)
      : request_(request), threads_(threads), device_(device) {}

  // final_states() [length, embed_width] of the windows [first, first + count).
  // `runner` runs the packed linears; null: they are decoded.
  std::vector<at::Tensor> hidden_states(const Model& model, int64_t first, int64_t count,
                                        Progress& progress, LinearRunner* runner = nullptr) const {
    const ModelSpec& spec = model.spec();
    const Embedding embed(model.weights(), spec);
    std::vector<at::Tensor> hidden(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
      hidden[static_cast<size_t>(i)] = embed(request_.windows.row(first + i)).to(device_);
    }
    const Rope rope = make_rope(spec, request_.windows.cols, device_);
    for (int64_t b = 0; b < spec.blocks(); ++b) {
      if (runner != nullptr) {  // it has the threads
        const Block block = load_running_block(model.weights(), spec, b, *runner, device_);
        if (request_.run_packed == RunPacked::kDecode) {
          advance_by_tokens(spec, block, rope, runner->team(), hidden);
        } else {
          advance(spec, block, rope, hidden, 1);
        }
      } else {
        advance(spec, load_block(model.weights(), spec, b, threads_, device_), rope, hidden,
                threads_);
      }
      progress.step();
    }
    const FinalLayers last = load_final_layers(model.weights(), spec, device_);
    parallel_for(count, threads_, [&](int64_t i) {
      const at::NoGradGuard no_grad;
      at::Tensor& state = hidden[static_cast<size_t>(i)];
      state = final_states(spec, last, state);
    });
    return hidden;
  }

  // hidden[i] = block(hidden[i]) of each window, one token after another.
  void advance_by_tokens(const ModelSpec& spec, const Block& block, const Rope& rope,
                         WorkerTeam* team, std::vector<at::Tensor>& hidden) const {
    const at::NoGradGuard no_grad;
    const std::vector<int64_t> slots = {spec.config.num_key_value_heads, request_.windows.cols,
                                        spec.config.head_dim};
    const at::TensorOptions options = at::TensorOptions(at::kFloat).device(device_);
    const BlockCache cache = {at::empty(slots, options), at::empty(slots, options)};
    for (at::Tensor& window : hidden) {
      const at::Tensor result = at::empty_like(window);
      for (int64_t t = 0; t < window.size(0); ++t) {
        result.narrow(0, t, 1).copy_(
            forward_cached(spec, block, window.narrow(0, t, 1), rope, cache, t, team));
      }
      window = result;
    }
  }

  // `original` is null without KL.
  WindowLoss window_loss(const Model& model, const at::Tensor& hidden, const Model* original,
                         const at::Tensor& original_hidden, int64_t index) const {
    const at::NoGradGuard no_grad;
    const std::span<const int32_t> tokens = request_.windows.row(index);
    const int64_t predictions = request_.windows.cols - 1;
    const int64_t chunk = std::max<int64_t>(1, kLogitBytes / (4 * model.spec().config.vocab_size));
    WindowLoss loss;
    for (int64_t row = 0; row < predictions; row += chunk) {
      const int64_t count = std::min(chunk, predictions - row);
      const auto log_probabilities = [&](const Model& m, const at::Tensor& states) {
        return at::log_softmax(logits(m.weights(), m.spec(), states.narrow(0, row, count)), 1);
      };
      at::Tensor log_q = log_probabilities(model, hidden);
      if (original != nullptr) {
        const at::Tensor log_p = log_probabilities(*original, original_hidden);
        const at::Tensor kl = log_p.exp().mul_(log_p.sub(log_q)).sum(1).cpu();
        const float* values = kl.const_data_ptr<float>();
        for (int64_t i = 0; i < count; ++i) loss.kl += values[i];
      }
      log_q = log_q.cpu();
      const float* values = log_q.const_data_ptr<float>();
      for (int64_t i = 0; i < count; ++i) {
        loss.nll -= values[i * log_q.size(1) + tokens[static_cast<size_t>(row + i + 1)]];
      }
    }
    return loss;
  }

 private:
  const EvalRequest& request_;
  const int threads_;
  const c10::Device device_;
};

void check_request(const EvalRequest& request) {
  if (request.windows.rows < 1 || request.windows.cols < 2) {
    throw bad_input("windows: expected at least one of at least 2 tokens, got " +
                    shape_text(std::vector<int64_t>{request.windows.rows, request.windows.cols}));
  }
}

void check_same_vocabulary(const Model& model, const Model& original) {
  const int64_t vocab = model.spec().config.vocab_size;
  const int64_t expected = original.spec().config.vocab_size;
  if (vocab != expected) {
    throw bad_input(model.checkpoint().directory().string() + ": vocab_size: expected " +
                        std::to_string(expected) + " as in " +
                        original.checkpoint().directory().string() + ", got " +
                        std::to_string(vocab),
                    "KL compares a model with the one it was made from");
  }
}

int64_t hidden_bytes_of_window(const EvalRequest& request, const Model* model) {
  return model == nullptr ? 0 : 4 * request.windows.cols * model->spec().config.hidden_size;
}

}  // namespace

EvalResult evaluate(const EvalRequest& request) {
  const auto start = std::chrono::steady_clock::now();
  init_torch();
  check_request(request);
  const Model model(request.model, resolve_threads(request.threads));
  const bool runs = request.run_packed != RunPacked::kNo && model.packed() != nullptr;
  const c10::Device device = runs ? resolve_running_device(request.device, *model.packed())
                                  : resolve_device(request.device);
  // Streams of a GPU are filled by one thread.
  const int threads = device.is_cpu() ? resolve_threads(request.threads) : 1;
  check_length(model.spec(), request.windows.cols);
  std::optional<Model> original_model;
  if (request.kl_model) original_model.emplace(*request.kl_model, threads);
  const Model* original = original_model ? &*original_model : nullptr;
  if (original != nullptr) {
    check_same_vocabulary(model, *original);
    check_length(original->spec(), request.windows.cols);
  }

  const int64_t windows = request.windows.rows;
  const int64_t batch =
      std::max<int64_t>(1, request.hidden_bytes / (hidden_bytes_of_window(request, &model) +
                                                   hidden_bytes_of_window(request, original)));
  const int64_t blocks = model.spec().blocks() + (original ? original->spec().blocks() : 0);
  Progress progress("eval", (windows + batch - 1) / batch * (blocks + 1), request.quiet);
  const Evaluation evaluation(request, threads, device);
  std::unique_ptr<LinearRunner> runner;
  if (request.run_packed != RunPacked::kNo) {
    if (model.packed() == nullptr) {
      throw Error(ErrorCode::kUsage, "running packed layers: expected a packed model",
                  "give a result of billm quantize");
    }
    runner = make_runner(device, threads);
  }
  std::vector<WindowLoss> losses(static_cast<size_t>(windows));
  for (int64_t first = 0; first < windows; first += batch) {
    const int64_t count = std::min(batch, windows - first);
    const std::vector<at::Tensor> hidden =
        evaluation.hidden_states(model, first, count, progress, runner.get());
    std::vector<at::Tensor> original_hidden(hidden.size());
    if (original != nullptr) {
      original_hidden = evaluation.hidden_states(*original, first, count, progress);
    }
    parallel_for(count, threads, [&](int64_t i) {
      const size_t slot = static_cast<size_t>(i);
      losses[static_cast<size_t>(first + i)] =
          evaluation.window_loss(model, hidden[slot], original, original_hidden[slot], first + i);
    });
    progress.step();
  }

  EvalResult result;
  double kl_sum = 0;
  for (const WindowLoss& loss : losses) {  // in order: sums do not depend on threads
    result.window_nll.push_back(loss.nll);
    result.nll_sum += loss.nll;
    kl_sum += loss.kl;
  }
  const ModelBits bits = model_bits(model);
  result.stored_bits = bits.stored_bits;
  result.file_bits = bits.file_bits;
  if (runner != nullptr) result.kernels = runner->kernels();
  result.predictions = windows * (request.windows.cols - 1);
  result.ppl = std::exp(result.nll_sum / static_cast<double>(result.predictions));
  if (original != nullptr) result.kl_mean = kl_sum / static_cast<double>(result.predictions);
  if (!std::isfinite(result.ppl) || !std::isfinite(kl_sum)) {
    throw Error(ErrorCode::kFailure,
                request.model.string() + ": the loss is not finite (the model overflows in fp32)");
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  result.peak_rss_bytes = peak_rss_bytes();
  return result;
}

}  // namespace billm
