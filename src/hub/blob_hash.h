// The hash that names a blob of the cache and of the hub: SHA-256 of the content for large files
// (git LFS), else git's own: SHA-1 of "blob <size>\0" and the content.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace billm {

class BlobHash {
 public:
  // The kind that `etag` is: 64 hexadecimal digits or 40. `size`: bytes of the whole content.
  BlobHash(const std::string& etag, int64_t size);
  ~BlobHash();
  void update(std::span<const std::byte> bytes);
  std::string hex();  // finishes; call once

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace billm
