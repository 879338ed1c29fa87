// Distillation of the whole quantized model, after its blocks: codes, scales and norm weights learn
// the original model's next-token distribution on the calibration text, KL(original || quantized)
// averaged over the tokens of a window, then over the windows of a step (Hinton et al., arXiv
// 1503.02531). Post-training: no labels, no stored
// bits. The model's blocks pass by one at a time, forward and backward (activations between blocks
// are all that is kept of a window), but every linear is held with its latents: about 26 bytes a
// weight.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "billm/checkpoint/npy.h"
#include "billm/model/block.h"
#include "billm/learn/tune_block.h"

namespace billm {

// One block of the quantized model, replaced by the best state.
struct DistilledBlock {
  Block block;  // without linears
  NormTypes types;
  std::map<std::string, TunedLinear> linears;
};

// Bytes that distillation of a model with this many quantized weights needs at least.
int64_t distill_bytes(int64_t weights);

// `original` and its `spec` give the embedding, the head and the teacher; `blocks` and `last`,
// whose norm is stored as `final_type` if there is one, are the quantized model's. Windows are
// pieces of the calibration sequences; the last eighth is held out. `progress` is called after
// every step. Throws Error{kFailure} if a loss is not finite, Error{kUsage} if there are fewer than
// two windows.
TuneReport distill(const ModelWeights& original, const ModelSpec& spec, const TokenMatrix& tokens,
                   const DistillConfig& config, at::ScalarType final_type, int threads,
                   c10::Device device, const std::function<void(int step, double loss)>& progress,
                   std::vector<DistilledBlock>* blocks, FinalLayers* last);

}  // namespace billm
