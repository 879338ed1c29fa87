// XXH3 with 128 bits (libxxhash), as 32 lower-case hex digits (what xxhsum -H2 prints): it tells
// whether bytes are the same at the speed of memory. Not against forgery: sha256.h.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace billm {

class Xxh3 {
 public:
  Xxh3();
  ~Xxh3();
  Xxh3(Xxh3&&) noexcept;
  void update(std::span<const std::byte> bytes);
  void update(std::string_view text);
  std::string hex() const;  // of what came so far

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string xxh3_hex(std::span<const std::byte> bytes);

}  // namespace billm
