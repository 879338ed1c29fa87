// Keys and values of the tokens of one sequence that have been computed: what lets
// forward_cached() (block.h) be given the new tokens alone.
//
// Memory: 8 * kv_heads * head_dim bytes per block and token, for `capacity` tokens; the system
// provides pages as they are written.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "billm/model/family.h"

namespace billm {

// One block's keys and values in fp32; keys with their positions (rotary embedding) applied.
struct BlockCache {
  at::Tensor keys, values;  // [kv_heads, capacity, head_dim]
};

class KvCache {
 public:
  // Throws Error{kFailure}, which has this hint, if it would not fit into the memory that is free
  // (available_memory(), or the device's).
  KvCache(const ModelSpec& spec, int64_t capacity, c10::Device device, const std::string& hint);

  int64_t capacity() const { return capacity_; }
  const BlockCache& block(int64_t index) const { return blocks_.at(static_cast<size_t>(index)); }

  // The bytes of all blocks at this capacity.
  static int64_t bytes(const ModelSpec& spec, int64_t capacity);

 private:
  int64_t capacity_;
  std::vector<BlockCache> blocks_;
};

}  // namespace billm
