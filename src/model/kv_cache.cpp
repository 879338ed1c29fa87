// See include/billm/model/kv_cache.h.
#include "billm/model/kv_cache.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <string>

#include "billm/base/error.h"
#include "billm/base/memory.h"
#include "billm/base/progress.h"

namespace billm {
namespace {

[[noreturn]] void refuse(int64_t bytes, int64_t capacity, const std::string& free,
                         const std::string& hint) {
  throw Error(ErrorCode::kFailure,
              "context of " + std::to_string(capacity) + " tokens: keys and values would take " +
                  bytes_text(bytes) + ", " + free,
              hint);
}

}  // namespace

int64_t KvCache::bytes(const ModelSpec& spec, int64_t capacity) {
  const ModelConfig& config = spec.config;
  return spec.blocks() * capacity * config.num_key_value_heads * config.head_dim * 8;
}

KvCache::KvCache(const ModelSpec& spec, int64_t capacity, c10::Device device,
                 const std::string& hint)
    : capacity_(capacity) {
  // Capacities come from the command line. The system gives out more memory than there is: what
  // cannot work is refused before it is allocated.
  const int64_t needed = bytes(spec, capacity), available = available_memory();
  if (device.is_cpu() && available > 0 && needed > available) {
    refuse(needed, capacity, bytes_text(available) + " of memory are free", hint);
  }
  const auto make = [&] {
    return at::empty({spec.config.num_key_value_heads, capacity, spec.config.head_dim},
                     at::TensorOptions(at::kFloat).device(device));
  };
  try {
    for (int64_t i = 0; i < spec.blocks(); ++i) blocks_.push_back({make(), make()});
  } catch (const c10::OutOfMemoryError&) {
    refuse(needed, capacity, "more than is free on " + device.str(), hint);
  }
}

}  // namespace billm
