// See model_digest.h.
#include "model_digest.h"

#include <algorithm>
#include <vector>

#include "billm/base/error.h"
#include "billm/base/json_text.h"
#include "billm/base/parallel.h"
#include "billm/base/sha256.h"
#include "billm/base/xxh3.h"
#include "billm/checkpoint/json.h"

namespace billm {
namespace {

constexpr const char* kXxh3Prefix = "xxh3:";
constexpr size_t kSha256Digits = 64;
constexpr size_t kOutlineBytes = 4096;  // of a tensor

// A line for each tensor, in the order of the names: `hash_bytes` says what its bytes are.
template <typename HashBytes>
std::vector<std::string> tensor_lines(const Checkpoint& checkpoint, int threads,
                                      const HashBytes& hash_bytes) {
  const std::vector<std::string> names = checkpoint.names();
  std::vector<std::string> lines(names.size());
  parallel_for(static_cast<int64_t>(names.size()), threads, [&](int64_t i) {
    const TensorView& tensor = checkpoint.tensor(names[i]);
    lines[i] = names[i] + " " + dtype_name(tensor.dtype) + shape_text(tensor.shape) + " " +
               hash_bytes(tensor.data) + "\n";
    checkpoint.release(names[i]);
  });
  return lines;
}

template <typename Hash>
std::string hash_of(const Checkpoint& checkpoint, const std::vector<std::string>& lines) {
  Hash hash;
  hash.update(dump_json(checkpoint.config().raw));
  for (const std::string& line : lines) hash.update(line);
  return hash.hex();
}

}  // namespace

std::string model_digest(const Checkpoint& checkpoint, int threads) {
  return kXxh3Prefix + hash_of<Xxh3>(checkpoint, tensor_lines(checkpoint, threads, xxh3_hex));
}

bool is_digest_of(const std::string& recorded, const Checkpoint& checkpoint, int threads,
                  const std::string& where) {
  if (recorded.starts_with(kXxh3Prefix)) return recorded == model_digest(checkpoint, threads);
  if (recorded.size() != kSha256Digits) {
    throw bad_input(
        where + ": model_digest: expected xxh3:... or a SHA-256, got " + printable(recorded),
        "a newer billm may have written it");
  }
  const auto sha256 = [](std::span<const std::byte> bytes) { return sha256_hex(bytes); };
  return recorded == hash_of<Sha256>(checkpoint, tensor_lines(checkpoint, threads, sha256));
}

std::string model_outline(const Checkpoint& checkpoint) {
  const auto start = [](std::span<const std::byte> bytes) {
    return xxh3_hex(bytes.first(std::min(kOutlineBytes, bytes.size())));
  };
  return hash_of<Xxh3>(checkpoint, tensor_lines(checkpoint, 1, start));
}

}  // namespace billm
