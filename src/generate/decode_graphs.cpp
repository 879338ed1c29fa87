// See decode_graphs.h.
#include "decode_graphs.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <bit>
#include <exception>
#include <string>
#include <utility>

#include "billm/base/log.h"

namespace billm {
namespace {

constexpr int64_t kFewestSlots = 256;

}  // namespace

DecodeGraphs::DecodeGraphs(std::unique_ptr<GraphCapture> capture, Step step, int64_t width,
                           int64_t vocab, int64_t capacity, c10::Device device)
    : capture_(std::move(capture)), step_(std::move(step)), capacity_(capacity) {
  const at::TensorOptions options = at::TensorOptions(at::kFloat).device(device);
  hidden_ = at::empty({1, width}, options);
  position_ = at::empty({1}, options.dtype(at::kLong));
  logits_ = at::empty({1, vocab}, options);
}

int64_t DecodeGraphs::span_of(int64_t position, int64_t capacity) {
  const auto slots = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(position + 1)));
  return std::min(std::max(slots, kFewestSlots), capacity);
}

at::Tensor DecodeGraphs::run(const at::Tensor& hidden, int64_t position) {
  if (broken_) return {};
  hidden_.copy_(hidden);
  position_.fill_(position);
  const int64_t span = span_of(position, capacity_);
  std::unique_ptr<CapturedGraph>& graph = graphs_[span];
  if (graph == nullptr) {
    try {
      graph = capture_->capture([this, span] { logits_.copy_(step_(hidden_, position_, span)); });
    } catch (const std::exception& error) {
      log_warning(std::string("no CUDA graphs, tokens are decoded more slowly: ") + error.what());
      broken_ = true;
      return {};
    }
  }
  graph->replay();
  return logits_;
}

}  // namespace billm
