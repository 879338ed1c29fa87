// Tokens with massive activations (arXiv 2402.17762): a few positions, mostly the first one of a
// sequence, whose hidden state some early block makes a hundred times as large as the others', and
// on which attention rests from there on ("attention sinks"). They are one token in thousands of a
// calibration text, so that a low-bit model can lose them; so they may count more in the sums
// (--sink-weight), and what becomes of them is reported.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "billm/report/report.h"
#include "original_pass.h"

namespace billm {

// A sink's norm is at least so many times the median of its sequence, behind the same block.
inline constexpr double kSinkRatio = 20;

// Where `state` [tokens, hidden] has them, ascending.
std::vector<int64_t> sink_positions(const at::Tensor& state);

// The positions that are sinks behind any block of the original, of each sequence of `hidden`, the
// inputs of the first block, which are left as something else.
std::vector<std::vector<int64_t>> find_sinks(const OriginalPass& pass, HiddenStates* hidden);

// What became of the sinks that `originals` have, behind the same block in the quantized model; of
// each sequence.
std::vector<SinkReport> compare_sinks(const Sequences& originals, const Sequences& present,
                                      int threads);

}  // namespace billm
