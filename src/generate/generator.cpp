// See include/billm/generate/generator.h.
#include "billm/generate/generator.h"

#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "billm/base/error.h"
#include "billm/base/parallel.h"
#include "billm/base/progress.h"
#include "billm/model/block.h"
#include "billm/model/kv_cache.h"
#include "billm/model/model.h"
#include "billm/model/model_bits.h"
#include "billm/model/output_head.h"
#include "billm/model/running_device.h"
#include "billm/model/runtime.h"
#include "decode_graphs.h"

namespace billm {
namespace {

void check_context(const ModelSpec& spec, int64_t context, const std::string& flags) {
  const int64_t positions = spec.config.max_position_embeddings;
  if (context < 1) {
    throw Error(ErrorCode::kUsage,
                "context: expected at least 1 token, got " + std::to_string(context));
  }
  if (spec.family->position == PositionKind::kLearned && context > positions) {
    throw Error(ErrorCode::kUsage,
                "context: expected at most the model's " + std::to_string(positions) +
                    " positions, got " + std::to_string(context),
                "give " + flags + " at most " + std::to_string(positions));
  }
}

}  // namespace

struct Generator::Impl {
  Impl(const GeneratorRequest& request, int threads)
      : model(request.model, threads),
        spec(model.spec()),
        runs_packed(request.run_packed && model.packed() != nullptr),
        device(runs_packed ? resolve_running_device(request.device, *model.packed())
                           : resolve_device(request.device)),
        cache((check_context(spec, request.context, request.context_flags), spec), request.context,
              device, "make " + request.context_flags + " smaller"),
        embed(model.weights(), spec),
        last(load_final_layers(model.weights(), spec, device)) {
    check_length(spec, request.context);
    if (runs_packed) runner = make_runner(device, threads);
    if (!runner && device.is_cpu()) own_team.emplace(threads);
    team = runner ? runner->team() : own_team ? &*own_team : nullptr;
    if (runner && request.run_head_bits == 8) {
      head.emplace(model.weights(), spec, *runner);
    } else {
      head.emplace(model.weights(), spec, threads, device, team);
    }
    Progress progress("load", spec.blocks(), request.quiet);
    for (int64_t b = 0; b < spec.blocks(); ++b) {
      blocks.push_back(runner ? load_running_block(model.weights(), spec, b, *runner, device)
                              : load_block(model.weights(), spec, b, threads, device));
      if (!runner && team != nullptr) share_linears(blocks.back(), *team);
      progress.step();
    }
    // A dynamic scaling is none up to this length.
    table = make_rope(
        spec, rope_is_dynamic() ? std::min(request.context, positions()) : request.context, device);
    if (request.graphs) make_graphs(request.make_capture(device));
  }

  void make_graphs(std::unique_ptr<GraphCapture> capture) {
    if (capture == nullptr) return;
    for (int64_t b = 0; b < spec.blocks(); ++b) {  // decode_step() wants finite numbers
      for (at::Tensor slots : {cache.block(b).keys, cache.block(b).values}) slots.zero_();
    }
    graphs = std::make_unique<DecodeGraphs>(
        std::move(capture),
        [this](const at::Tensor& hidden, const at::Tensor& position, int64_t span) {
          const DecodeStep step = make_decode_step(spec, table, position, span);
          at::Tensor x = hidden;
          for (int64_t b = 0; b < spec.blocks(); ++b) {
            x = decode_step(spec, blocks[static_cast<size_t>(b)], x, step, cache.block(b));
          }
          return head->logits(final_states(spec, last, x));
        },
        spec.config.hidden_size, spec.config.vocab_size, cache.capacity(), device);
  }

  int64_t positions() const { return spec.config.max_position_embeddings; }
  bool rope_is_dynamic() const { return spec.config.rope_scaling.type == "dynamic"; }

  // The factors of the positions before `end`.
  Rope rope(int64_t end) const {
    return rope_is_dynamic() && end > positions() ? make_rope(spec, end, device) : table;
  }

  // Logits [1, vocab] of the last of `tokens`, which follow those that there are.
  at::Tensor forward(std::span<const int32_t> tokens) {
    const auto count = static_cast<int64_t>(tokens.size());
    const Rope angles = rope(length + count);
    at::Tensor hidden;
    for (int64_t done = 0; done < count; done += kPrefillChunk) {
      const int64_t start = length + done, chunk = std::min(kPrefillChunk, count - done);
      hidden = embed(tokens.subspan(static_cast<size_t>(done), static_cast<size_t>(chunk)), start)
                   .to(device);
      for (int64_t b = 0; b < spec.blocks(); ++b) {
        hidden = forward_cached(spec, blocks[static_cast<size_t>(b)], hidden, angles,
                                cache.block(b), start, team);
      }
    }
    const at::Tensor state = hidden.narrow(0, hidden.size(0) - 1, 1);
    return head->logits(final_states(spec, last, state));
  }

  // The same of one token by a graph; undefined where there is none for it.
  at::Tensor replay(std::span<const int32_t> token) {
    const bool other_angles = rope_is_dynamic() && length + 1 > positions();
    if (graphs == nullptr || other_angles) return {};
    return graphs->run(embed(token, length), length);
  }

  const Model model;
  const ModelSpec& spec;
  const bool runs_packed;
  const c10::Device device;
  KvCache cache;
  const Embedding embed;
  const FinalLayers last;
  std::unique_ptr<LinearRunner> runner;  // null: nothing is run packed
  std::optional<WorkerTeam> own_team;    // on the CPU without a runner, which has one
  WorkerTeam* team = nullptr;            // the runner's or our own; null on a GPU
  std::optional<OutputHead> head;
  std::vector<Block> blocks;
  Rope table;
  std::unique_ptr<DecodeGraphs> graphs;  // null: none
  int64_t length = 0;
  at::Tensor logits;  // of the last call: [1, vocab] on the CPU
};

Generator::Generator(const GeneratorRequest& request) {
  init_torch();
  const c10::InferenceMode inference;
  impl_ = std::make_unique<Impl>(request, resolve_threads(request.threads));
}

Generator::~Generator() = default;

std::span<const float> Generator::append(std::span<const int32_t> tokens) {
  const c10::InferenceMode inference;
  Impl& my = *impl_;
  const auto count = static_cast<int64_t>(tokens.size());
  if (count < 1) throw Error(ErrorCode::kFailure, "generator: expected at least one token");
  if (count > context() - length()) {
    throw Error(ErrorCode::kFailure,
                "the context is full: " + std::to_string(context()) + " tokens, " +
                    std::to_string(length()) + " of them used, " + std::to_string(count) +
                    " more to add",
                "use a larger --ctx-size or a shorter text");
  }
  at::Tensor logits = count == 1 ? my.replay(tokens) : at::Tensor();
  if (!logits.defined()) logits = my.forward(tokens);
  my.length += count;
  my.logits = logits.cpu();
  return {my.logits.const_data_ptr<float>(), static_cast<size_t>(my.logits.numel())};
}

void Generator::truncate(int64_t length) {
  if (length < 0 || length > impl_->length) {
    throw Error(ErrorCode::kFailure, "generator: truncated to more than there is");
  }
  impl_->length = length;
}

int64_t Generator::length() const { return impl_->length; }
int64_t Generator::context() const { return impl_->cache.capacity(); }
int64_t Generator::vocab() const { return impl_->spec.config.vocab_size; }

int64_t Generator::linear_bytes() const {
  int64_t sum = 0;
  for (const Block& block : impl_->blocks) {
    for (const auto& [suffix, linear] : block.linears) sum += linear->bytes();
  }
  return sum;
}

int64_t Generator::linear_weights() const {
  int64_t sum = 0;
  for (const LinearSpec& linear : impl_->spec.family->linears) {
    sum += linear.out_width(impl_->spec.config) * linear.in_width(impl_->spec.config);
  }
  return sum * impl_->spec.blocks();
}

int64_t Generator::head_bytes() const { return impl_->head->bytes(); }

double Generator::stored_bits() const { return model_bits(impl_->model).stored_bits.value_or(0); }

}  // namespace billm
