// Distillation of the whole quantized model, after its blocks: codes, scales and norm weights learn
// the original model's next-token distribution on the calibration text, KL(original || quantized)
// averaged over the tokens of a window, then over the windows of a step (Hinton et al., arXiv
// 1503.02531). Post-training: no labels, no stored
// bits. The model's blocks pass by one at a time, forward and backward (activations between blocks
// are all that is kept of a window); of a linear its codes and scales are held, and its latents
// with their moments if codes learn (distill_bytes).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "billm/checkpoint/npy.h"
#include "billm/learn/training_state.h"
#include "billm/learn/tune_block.h"
#include "billm/model/block.h"

namespace billm {

// One block of the quantized model, replaced by the best state.
struct DistilledBlock {
  Block block;  // without linears
  NormTypes types;
  std::map<std::string, TunedLinear> linears;
};

// What distillation of a model with this many quantized weights needs at least, in bytes of memory
// on the model's device and on the host.
struct DistillBytes {
  int64_t device = 0, host = 0;
};
DistillBytes distill_bytes(int64_t latents, const DistillConfig& config);

// Called after every step with the mean loss of its windows; `state` makes what a later run can go
// on from.
using DistillStep =
    std::function<void(int step, double loss, const std::function<TrainingState()>& state)>;

struct DistillResult {
  TuneReport tune;
  std::vector<double> losses;  // of all steps, each before the step
};

// `original` and its `spec` give the embedding, the head and the teacher; `blocks` and `last`,
// whose norm is stored as `final_type` if there is one, are the quantized model's. Windows are
// pieces of the calibration sequences; the last eighth is held out. `resumed` (null: none) is a
// state that a run with the same arguments had, `where` its file: the result is the same as without
// the interruption. The original weights in `blocks` are dropped on the way. Throws Error{kFailure}
// if a loss is not finite, Error{kUsage} if there are fewer than two windows, Error{kBadInput} if
// `resumed` is another run's.
DistillResult distill(const ModelWeights& original, const ModelSpec& spec,
                      const TokenMatrix& tokens, const DistillConfig& config,
                      at::ScalarType final_type, int threads, c10::Device device,
                      const DistillStep& after, const TrainingState* resumed,
                      const std::string& where, std::vector<DistilledBlock>* blocks,
                      FinalLayers* last);

}  // namespace billm
