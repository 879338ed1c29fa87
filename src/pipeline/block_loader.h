// The original blocks in turn. For a GPU the next one is read and converted, and copied to the
// device, by a thread and in a stream of its own while the block before it is computed; on a CPU
// that would take time and memory from the computing itself.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Event.h>

#include <future>
#include <optional>

#include "billm/model/block.h"

namespace billm {

class BlockLoader {
 public:
  // Keeps the references. `ahead`: whether to load the next block early.
  BlockLoader(const ModelWeights& weights, const ModelSpec& spec, int threads, c10::Device device,
              bool ahead)
      : weights_(weights), spec_(spec), threads_(threads), device_(device), ahead_(ahead) {}

  // Block `index`; of a GPU, ATen's current stream waits for its copies. What is wrong with its
  // weights is thrown here, not while another is computed.
  Block take(int64_t index);

 private:
  struct Loaded {
    Block block;
    std::optional<c10::Event> copied;  // in a stream of its own
  };
  Loaded load_beside(int64_t index) const;
  Block in_current_stream(Loaded loaded) const;

  const ModelWeights& weights_;
  const ModelSpec& spec_;
  const int threads_;
  const c10::Device device_;
  const bool ahead_;
  int64_t next_index_ = -1;
  std::future<Loaded> next_;  // waits for its thread when destroyed
};

}  // namespace billm
