// What every target checks: a parser answers any input with a result or with one line of
// Error{kBadInput}; anything else (a crash, another exception, another error code) is a finding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "billm/base/error.h"

namespace billm::fuzz {

// The input as text.
inline std::string_view text_of(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

inline void require(bool holds) {
  if (!holds) __builtin_trap();
}

// Reads every byte, so that the sanitizers see a view that leaves its file.
inline void read_all(std::span<const std::byte> bytes) {
  unsigned sum = 0;
  for (const std::byte value : bytes) sum += static_cast<unsigned>(value);
  volatile unsigned keep = sum;
  (void)keep;
}

// A directory of this process's own, for parsers that read files; it is gone when the process ends.
inline std::filesystem::path scratch_directory() {
  struct Scratch {
    Scratch() {
      std::string pattern = (std::filesystem::temp_directory_path() / "billm-fuzz-XXXXXX").string();
      require(::mkdtemp(pattern.data()) != nullptr);
      path = pattern;
    }
    ~Scratch() {
      std::error_code ignored;
      std::filesystem::remove_all(path, ignored);
    }
    std::filesystem::path path;
  };
  static const Scratch scratch;
  return scratch.path;
}

template <typename Body>
int answer(Body&& body) {
  constexpr size_t kLongestMessage = 4000;
  try {
    body();
  } catch (const Error& error) {
    require(error.code() == ErrorCode::kBadInput);
    require(error.message().find('\n') == std::string::npos);
    require(!error.message().empty() && error.message().size() < kLongestMessage);
  }
  return 0;
}

}  // namespace billm::fuzz
