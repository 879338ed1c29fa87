// Where the error of a quantized model comes from: by how much its divergence from the original
// would fall, to first order, if one linear had its original weight again.
#pragma once

#include <c10/core/Device.h>

#include <map>
#include <string>

#include "billm/checkpoint/npy.h"
#include "billm/model/model.h"

namespace billm {

struct RestoringGains {
  double loss = 0;                     // KL(original || quantized), nats a token
  std::map<std::string, double> gain;  // <d loss / d Q, Q - W> of every linear, by module
};

// Q: a linear's decoded weight, W: the original's. Means over the tokens of the first `windows`
// sequences. Blocks pass by one at a time, as in distillation; of as many windows as there are
// threads the hidden states between all blocks are kept. Throws Error{kFailure} if something is not
// finite.
RestoringGains restoring_gains(const Model& original, const Model& quantized,
                               const TokenMatrix& tokens, int64_t windows, c10::Device device,
                               int threads, bool quiet);

}  // namespace billm
