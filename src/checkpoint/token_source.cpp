// Windows of tokens: see token_source.h.
#include "billm/checkpoint/token_source.h"

#include <algorithm>
#include <string>

#include "billm/base/error.h"

namespace billm {
namespace {

// SplitMix64 (Steele, Lea, Flood 2014): the whole state is the seed, every seed is a good one.
class SplitMix64 {
 public:
  explicit SplitMix64(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
  }
  // Uniform in [0, bound): draws below 2^64 mod bound would favour small results and are redone.
  uint64_t below(uint64_t bound) {
    const uint64_t reject = (0 - bound) % bound;
    uint64_t drawn = next();
    while (drawn < reject) drawn = next();
    return drawn % bound;
  }

 private:
  uint64_t state_;
};

void check(std::span<const int32_t> tokens, int64_t length) {
  if (length < 1) {
    throw bad_input("windows: expected a length of at least 1, got " + std::to_string(length));
  }
  if (static_cast<int64_t>(tokens.size()) < length) {
    throw bad_input("windows: expected a text of at least " + std::to_string(length) +
                        " tokens (one window), got " + std::to_string(tokens.size()),
                    "give a longer text or a smaller window length");
  }
}

void append(std::span<const int32_t> tokens, int64_t start, TokenMatrix& matrix) {
  const auto begin = tokens.begin() + start;
  matrix.values.insert(matrix.values.end(), begin, begin + matrix.cols);
  ++matrix.rows;
}

}  // namespace

TokenMatrix sample_windows(std::span<const int32_t> tokens, int64_t count, int64_t length,
                           uint64_t seed) {
  check(tokens, length);
  if (count < 1) {
    throw bad_input("windows: expected a count of at least 1, got " + std::to_string(count));
  }
  SplitMix64 random(seed);
  TokenMatrix matrix{0, length, {}};
  const uint64_t starts = tokens.size() - static_cast<uint64_t>(length) + 1;
  for (int64_t i = 0; i < count; ++i) {
    append(tokens, static_cast<int64_t>(random.below(starts)), matrix);
  }
  return matrix;
}

TokenMatrix consecutive_windows(std::span<const int32_t> tokens, int64_t length, int64_t limit) {
  check(tokens, length);
  if (limit < 0) {
    throw bad_input("windows: expected a limit of at least 0, got " + std::to_string(limit));
  }
  TokenMatrix matrix{0, length, {}};
  int64_t count = static_cast<int64_t>(tokens.size()) / length;
  if (limit > 0) count = std::min(count, limit);
  matrix.values.reserve(static_cast<size_t>(count * length));
  for (int64_t i = 0; i < count; ++i) append(tokens, i * length, matrix);
  return matrix;
}

}  // namespace billm
