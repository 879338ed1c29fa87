// SHA-256 of bytes and files, as 64 lower-case hex digits (what sha256sum prints); SHA-1 for git.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace billm {

enum class HashKind { kSha256, kSha1 };

class Hash {
 public:
  explicit Hash(HashKind kind);
  ~Hash();
  Hash(Hash&&) noexcept;
  void update(std::span<const std::byte> bytes);
  void update(std::string_view text);
  std::string hex();  // finishes; call once

 private:
  struct State;
  std::unique_ptr<State> state_;
};

class Sha256 : public Hash {
 public:
  Sha256() : Hash(HashKind::kSha256) {}
};

std::string sha256_hex(std::span<const std::byte> bytes);
std::string sha256_hex(std::string_view text);
std::string sha256_file(const std::filesystem::path& path);

}  // namespace billm
