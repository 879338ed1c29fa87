// Perplexity as the GPTQ and BiLLM papers measure it: non-overlapping windows, each alone, mean
// over all length - 1 predictions of every window, fp32 logits, exp of the mean loss. And the mean
// KL(original || model) over the same predictions.
//
// The model is never held: for each batch of windows one block after another is converted or
// decoded to fp32, all windows of the batch pass it, and it is dropped.
//
// Memory besides the mapped files, in bytes:
//   one block        4 * its weights (dropped before the output head)
//   hidden states    4 * length * hidden a window; a batch has as many windows as fit into
//                    EvalRequest::hidden_bytes, at least one (with KL: those of both models)
//   token by token   the keys and values of a window in one block (kv_cache.h)
//   each thread      one forward pass (block.h), or at the output head 2 (with KL: 4) logit chunks
//   of
//                    at most kLogitBytes and a piece of the head (kHeadPieceBytes in block.h)
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "billm/checkpoint/token_source.h"

namespace billm {

// Logits of one chunk of predictions; at least one row. Fixed, so that results do not depend on the
// machine's memory.
inline constexpr int64_t kLogitBytes = int64_t{48} << 20;

// How packed linears are computed.
enum class RunPacked {
  kNo,       // decoded to fp32
  kDecode,   // by the kernels of generate, one token at a time with its keys and values kept
  kPrefill,  // by those that generate has for a prompt, a whole window at once
};

struct EvalRequest {
  std::filesystem::path model;                                   // dense or packed directory
  TokenMatrix windows;                                           // [windows, length], length >= 2
  std::optional<std::filesystem::path> kl_model = std::nullopt;  // the original
  int threads = 1;
  std::string device = "auto";  // as resolve_device
  // What the rounded inputs of the kernels cost. kl_model is decoded.
  RunPacked run_packed = RunPacked::kNo;
  bool quiet = true;                          // no progress on stderr
  int64_t hidden_bytes = int64_t{256} << 20;  // the result does not depend on it
};

struct EvalResult {
  double ppl = 0;                  // exp(nll_sum / predictions)
  double nll_sum = 0;              // natural logarithm; the sum of window_nll in order
  std::vector<double> window_nll;  // one sum a window, so that the first n windows have a ppl, too
  int64_t predictions = 0;         // windows * (length - 1)
  std::optional<double> kl_mean = std::nullopt;
  std::optional<double> stored_bits = std::nullopt;  // of packed linears (model_bits.h)
  double file_bits = 0;                              // of the whole file per parameter
  std::string kernels;                               // with run_packed: LinearRunner::kernels()
  double seconds = 0;
  int64_t peak_rss_bytes = 0;  // of this process so far
};

// The same result for any number of threads. Throws Error{kBadInput} for a bad model, windows that
// are too short, tokens outside the vocabulary or a KL model with another vocabulary;
// Error{kFailure} if the loss is not finite.
EvalResult evaluate(const EvalRequest& request);

}  // namespace billm
