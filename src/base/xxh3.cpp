// See include/billm/base/xxh3.h.
#include "billm/base/xxh3.h"

#include <xxhash.h>

#include <cstdint>
#include <cstdio>

#include "billm/base/error.h"

namespace billm {
namespace {

std::string hex_text(const XXH128_hash_t& hash) {
  char text[33];
  std::snprintf(text, sizeof(text), "%016llx%016llx", static_cast<unsigned long long>(hash.high64),
                static_cast<unsigned long long>(hash.low64));
  return text;
}

}  // namespace

struct Xxh3::State {
  XXH3_state_t* hash = XXH3_createState();
  ~State() { XXH3_freeState(hash); }
};

Xxh3::Xxh3() : state_(std::make_unique<State>()) {
  if (state_->hash == nullptr || XXH3_128bits_reset(state_->hash) != XXH_OK) {
    throw Error(ErrorCode::kFailure, "libxxhash: no memory for a hash");
  }
}

Xxh3::~Xxh3() = default;
Xxh3::Xxh3(Xxh3&&) noexcept = default;

void Xxh3::update(std::span<const std::byte> bytes) {
  XXH3_128bits_update(state_->hash, bytes.data(), bytes.size());
}

void Xxh3::update(std::string_view text) { update(std::as_bytes(std::span(text))); }

std::string Xxh3::hex() const { return hex_text(XXH3_128bits_digest(state_->hash)); }

std::string xxh3_hex(std::span<const std::byte> bytes) {
  return hex_text(XXH3_128bits(bytes.data(), bytes.size()));
}

}  // namespace billm
