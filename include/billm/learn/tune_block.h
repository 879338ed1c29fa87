// Block tuning: after a block's linears are quantized, their codes, scales and the block's norm
// weights (no biases) are learned against the full-precision block's output on the calibration
// sequences (post-training; no stored bits are added). Loss: relative squared error per token, |y -
// y*|^2 / |y*|^2, so that a few tokens with massive activations do not dominate; nor are they lost
// among thousands if they count more often (HeavyTokens, --sink-weight).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "billm/calibrate/collect.h"
#include "billm/codes/layer_codes.h"
#include "billm/learn/config.h"
#include "billm/model/block.h"

namespace billm {

// The dtypes in which the file stores the norm weights of a block, by suffix as Block::norms.
using NormTypes = std::map<std::string, at::ScalarType>;

// One linear of the block: what was quantized, and from which weights.
struct TunedLinear {
  at::Tensor original;  // [out, in] fp32, CPU
  LayerCodes codes;     // replaced by the best
};

// `block` gives what is not learned and the norms' start; its linears are looked at where `linears`
// has none. Its norms and the codes of `linears` are replaced by the best state on the held-out
// windows, norms exact in their dtypes; where nothing was gained they are left as they are.
// inputs[i] [tokens, hidden] are what reaches the block in the quantized model, targets[i] [tokens,
// hidden] what the original block makes of its own inputs. `heavy`: the tokens that count more in
// the loss, of the same sequences. The device is the inputs'. Throws Error{kFailure} if a loss is
// not finite.
TuneReport tune_block(const ModelSpec& spec, const Rope& rope,
                      const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>& targets,
                      const HeavyTokens& heavy, const TuneConfig& config, const NormTypes& types,
                      int threads, Block* block, std::map<std::string, TunedLinear>* linears);

}  // namespace billm
