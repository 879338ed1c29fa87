// The output head held in memory, for passes of few tokens: logits() of block.h converts the head
// anew at every call, which would take longer than such a pass.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "billm/model/family.h"
#include "billm/model/weights.h"

namespace billm {

class OutputHead {
 public:
  // In fp32 on `device`: 4 * vocab * embed_width bytes.
  OutputHead(const ModelWeights& weights, const ModelSpec& spec, int threads, c10::Device device);

  // Of final_states() [tokens, embed_width]: [tokens, vocab], the same for any number of threads.
  at::Tensor logits(const at::Tensor& states) const;

  int64_t bytes() const { return static_cast<int64_t>(weight_.nbytes()); }

 private:
  at::Tensor weight_;  // [vocab, embed_width]
  int threads_;
};

}  // namespace billm
