// The output head held in memory, for passes of few tokens: logits() of block.h converts the head
// anew at every call, which would take longer than such a pass.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "billm/model/family.h"
#include "billm/model/linear_operator.h"
#include "billm/model/weights.h"

namespace billm {

class OutputHead {
 public:
  // In fp32 on `device`: 4 * vocab * embed_width bytes. `team`: as of DenseLinear.
  OutputHead(const ModelWeights& weights, const ModelSpec& spec, int threads, c10::Device device,
             WorkerTeam* team);
  // Run from integers, on the CPU. A head that is stored as integer rows is run as those, be they
  // of 8 bits or of 4; any other is rounded to 8 bits, about 1.07 bytes a weight: integers of
  // -127..127 times a step in fp16 per row and kHeadBlock columns.
  OutputHead(const ModelWeights& weights, const ModelSpec& spec, LinearRunner& runner);

  // final_states() [tokens, embed_width] -> [tokens, vocab], the same for any number of threads.
  at::Tensor logits(const at::Tensor& states) const;

  int64_t bytes() const;  // read for one token

 private:
  std::vector<std::unique_ptr<LinearOperator>> parts_;  // rows, one behind the other
};

inline constexpr int kHeadBlock = 128;
// Rows that are rounded at a time.
inline constexpr int64_t kHeadRows = 8192;

// The layer that stands for rows [rows, cols] of a head: the nearest 8-bit integers.
RegionCodes round_to_8_bits(const float* weight, int64_t rows, int64_t cols, int threads);

}  // namespace billm
