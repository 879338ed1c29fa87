// Windows of tokens: see token_source.h.
#include "billm/checkpoint/token_source.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "billm/base/error.h"
#include "billm/base/sha256.h"
#include "split_mix.h"

namespace billm {
namespace {

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

std::vector<int64_t> share_windows(int64_t count, std::span<const int64_t> weights) {
  const auto sum =
      static_cast<uint64_t>(std::accumulate(weights.begin(), weights.end(), int64_t{0}));
  std::vector<int64_t> shares;
  std::vector<uint64_t> remainders;
  int64_t left = count;
  for (const int64_t weight : weights) {
    const uint64_t product = static_cast<uint64_t>(count) * static_cast<uint64_t>(weight);
    shares.push_back(static_cast<int64_t>(product / sum));
    remainders.push_back(product % sum);
    left -= shares.back();
  }
  std::vector<size_t> order(weights.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return remainders[a] > remainders[b]; });
  for (size_t i = 0; left > 0; ++i, --left) ++shares[order[i]];
  return shares;
}

TokenMatrix interleave_windows(std::span<const TokenMatrix> parts, uint64_t seed) {
  // Window j of a part's n stands at (j + u) / n, u uniform in [0, 1) in steps of 2^-20.
  struct Place {
    size_t part;
    int64_t window;
    uint64_t numerator;  // of (j + u) * 2^20
  };
  constexpr int kDrawnBits = 20;  // with at most 2^20 windows no product below is above 2^61
  SplitMix64 random(~seed);       // not the stream that chose the windows
  std::vector<Place> places;
  for (size_t part = 0; part < parts.size(); ++part) {
    for (int64_t j = 0; j < parts[part].rows; ++j) {
      const uint64_t drawn = random.next() >> (64 - kDrawnBits);
      places.push_back({part, j, (static_cast<uint64_t>(j) << kDrawnBits) + drawn});
    }
  }
  std::sort(places.begin(), places.end(), [&](const Place& a, const Place& b) {
    const uint64_t left = a.numerator * static_cast<uint64_t>(parts[b.part].rows);
    const uint64_t right = b.numerator * static_cast<uint64_t>(parts[a.part].rows);
    return left != right ? left < right : a.part < b.part;
  });
  TokenMatrix mixed{0, parts.front().cols, {}};
  for (const Place& place : places) {
    append(parts[place.part].values, place.window * mixed.cols, mixed);
  }
  return mixed;
}

std::string tokens_digest(const TokenMatrix& tokens) {
  Sha256 hash;
  hash.update(std::to_string(tokens.rows) + "x" + std::to_string(tokens.cols) + ";");
  hash.update(std::as_bytes(std::span(tokens.values)));
  return hash.hex();
}

}  // namespace billm
