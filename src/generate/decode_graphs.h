// Decoding by graphs: one token passes all blocks and the head in one launch. A graph has fixed
// shapes, so there is one for each span of the cache that is looked at: 256 slots, 512, ..., the
// capacity; each is captured when a token first needs it. What changes from token to token stands
// in tensors that stay where they are: the token's hidden state, its position, the logits.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "billm/model/graph_capture.h"

namespace billm {

class DecodeGraphs {
 public:
  // The whole step of one token: hidden [1, width] and position (int64 [1], less than span), both
  // on the device -> logits [1, vocab]. Must bear being done again for the same token.
  using Step =
      std::function<at::Tensor(const at::Tensor& hidden, const at::Tensor& position, int64_t span)>;

  DecodeGraphs(std::unique_ptr<GraphCapture> capture, Step step, int64_t width, int64_t vocab,
               int64_t capacity, c10::Device device);

  // Logits [1, vocab] of the token at `position` < capacity, valid until the next call; hidden
  // [1, width] may lie on the CPU. Undefined if a step could not be captured, which a warning says:
  // then the token has to be computed otherwise, and so have all to come.
  at::Tensor run(const at::Tensor& hidden, int64_t position);

  // Slots of the cache that are looked at for a token at `position`.
  static int64_t span_of(int64_t position, int64_t capacity);

 private:
  const std::unique_ptr<GraphCapture> capture_;
  const Step step_;
  const int64_t capacity_;
  at::Tensor hidden_, position_, logits_;
  std::map<int64_t, std::unique_ptr<CapturedGraph>> graphs_;  // by span
  bool broken_ = false;
};

}  // namespace billm
