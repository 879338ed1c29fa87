// Logits token by token: a whole model in memory and the keys and values of one sequence.
//
// Memory besides the mapped files: on the CPU the bytes of packed linears and about one byte per
// weight of the output head, else 4 bytes per weight of both; the KvCache; the pass of one chunk of
// kPrefillChunk tokens (block.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "billm/model/graph_capture.h"

namespace billm {

// Tokens that pass the blocks together.
inline constexpr int64_t kPrefillChunk = 512;

struct GeneratorRequest {
  std::filesystem::path model;               // dense or packed directory
  int64_t context = 0;                       // most tokens of the sequence, at least 1
  std::string context_flags = "--ctx-size";  // what chooses it, for hints
  int threads = 1;
  std::string device = "auto";  // as resolve_device
  // How the output head of a packed model is run, however it is stored: 8: from integers
  // (OutputHead) where packed layers are run as such; 32: in fp32.
  int run_head_bits = 8;
  bool run_packed = true;  // false: packed linears are decoded to fp32 once
  bool quiet = true;       // no progress on stderr
  // Whether a token after the first is one replay of a captured graph, where the device has graphs
  // (CUDA). Logits then differ from those without in rounding.
  bool graphs = true;
  std::function<std::unique_ptr<GraphCapture>(c10::Device)> make_capture = make_graph_capture;
};

class Generator {
 public:
  // Throws Error{kBadInput} for a bad model; Error{kUsage} for a context beyond a model's learned
  // positions (beyond rotary ones: warns); Error{kFailure} if the context does not fit into memory.
  explicit Generator(const GeneratorRequest& request);
  ~Generator();
  Generator(const Generator&) = delete;
  Generator& operator=(const Generator&) = delete;

  // Appends tokens (at least one) to the sequence. The logits [vocab] of what follows the last of
  // them, valid until the next call. Throws Error{kFailure} if the context has no room for them,
  // Error{kBadInput} for a token outside the vocabulary; then the sequence is as before.
  //
  // As in transformers, a dynamic rope scaling rotates the tokens of one call by the length of the
  // sequence at its end, and leaves earlier tokens as they were.
  std::span<const float> append(std::span<const int32_t> tokens);

  // Forgets all but the first `length` tokens; length <= this->length().
  void truncate(int64_t length);

  int64_t length() const;
  int64_t context() const;
  int64_t vocab() const;
  // Read for one token: of the blocks' linears and of the output head.
  int64_t linear_bytes() const;
  int64_t head_bytes() const;
  int64_t linear_weights() const;  // of the blocks' linears
  double stored_bits() const;      // per weight of the packed linears; 0 for a dense model

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace billm
