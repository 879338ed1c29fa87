// The optimizer: AdamW (Loshchilov & Hutter, arXiv 1711.05101) without weight decay, fused by ATen.
#pragma once

#include <cstdint>

#include "trainable.h"

namespace billm {

class AdamW {
 public:
  // The moments [as the parameter] lie on its device.
  explicit AdamW(std::vector<Parameter> parameters);

  // Step `number` (from 1) against the gradients of the parameters; `rate` is a factor of theirs.
  // The same result at any thread count.
  void step(const std::vector<at::Tensor>& gradients, int64_t number, double rate, int threads);

  // "<parameter>", "<parameter>.mean" and "<parameter>.square": the tensors themselves.
  NamedTensors state() const;

 private:
  std::vector<Parameter> parameters_;
  std::vector<at::Tensor> mean_, square_;
};

}  // namespace billm
