// See include/billm/model/kv_cache.h.
#include "billm/model/kv_cache.h"

#include <ATen/ops/empty.h>
#include <unistd.h>

#include <string>

#include "billm/base/error.h"

namespace billm {
namespace {

// Capacities come from the command line: what cannot work is refused before it is allocated.
void check_fits(int64_t bytes, int64_t capacity) {
  const double memory =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  if (memory <= 0 || static_cast<double>(bytes) <= memory) return;
  const auto gigabytes = [](double n) { return std::to_string(static_cast<int64_t>(n / 1e9)); };
  throw Error(ErrorCode::kFailure,
              "context of " + std::to_string(capacity) + " tokens: keys and values would take " +
                  gigabytes(static_cast<double>(bytes)) + " GB, this machine has " +
                  gigabytes(memory) + " GB",
              "use a smaller --ctx-size");
}

}  // namespace

int64_t KvCache::bytes(const ModelSpec& spec, int64_t capacity) {
  const ModelConfig& config = spec.config;
  return spec.blocks() * capacity * config.num_key_value_heads * config.head_dim * 8;
}

KvCache::KvCache(const ModelSpec& spec, int64_t capacity, c10::Device device)
    : capacity_(capacity) {
  check_fits(bytes(spec, capacity), capacity);
  const auto make = [&] {
    return at::empty({spec.config.num_key_value_heads, capacity, spec.config.head_dim},
                     at::TensorOptions(at::kFloat).device(device));
  };
  for (int64_t i = 0; i < spec.blocks(); ++i) blocks_.push_back({make(), make()});
}

}  // namespace billm
