// Calibration passes: the inputs of a block's linears summed into CalibrationStats, and the hidden
// states moved on to the next block. GPTQ, arXiv:2210.17323, section 3: H = 2/n * X^T X.
//
// Memory: collect_stats stores the inputs of a chunk of sequences (CollectOptions::input_bytes) and
// one [width, width] matrix for each group; every thread adds one forward pass (block.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "billm/calibrate/stats.h"
#include "billm/model/block.h"

namespace billm {

struct CollectOptions {
  int threads = 1;
  // Stored inputs: as many sequences as fit, at least one. The result does not depend on it.
  int64_t input_bytes = int64_t{1} << 30;
  std::string group = {};  // this input group alone; empty: all of them
};

// Wall-clock seconds, added to what stands there.
struct CollectSeconds {
  double forward = 0;
  double hessian = 0;
};

// Stats of every input group (LinearSpec::group) of the block over all sequences, each
// [tokens, hidden] of any length that `rope` covers. Bitwise the same for any thread count and
// chunk size: fp32 sums over the tokens of a sequence, then over the sequences in order. Throws
// Error{kFailure} if an input is not finite.
std::map<std::string, CalibrationStats> collect_stats(const ModelSpec& spec, const Block& block,
                                                      const Rope& rope,
                                                      const std::vector<at::Tensor>& hidden,
                                                      const CollectOptions& options,
                                                      CollectSeconds* seconds = nullptr);

// hidden[i] = block(hidden[i]) for all i, in place. `seconds`, if given, is added to.
void advance(const ModelSpec& spec, const Block& block, const Rope& rope,
             std::vector<at::Tensor>& hidden, int threads, double* seconds = nullptr);

}  // namespace billm
