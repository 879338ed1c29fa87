// Token ids as a matrix of equally long sequences, and how a text's tokens are cut into one.
// Files of ids are read by npy.h, texts by texts.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace billm {

struct TokenMatrix {
  int64_t rows = 0, cols = 0;
  std::vector<int32_t> values;  // [rows, cols], C order
  std::span<const int32_t> row(int64_t i) const {
    return {values.data() + i * cols, static_cast<size_t>(cols)};
  }
};

// `count` windows of `length` tokens, each starting anywhere in `tokens` with equal probability
// (they may overlap). The same on every machine for the same seed: integer arithmetic only.
// Throws Error{kBadInput} if `tokens` is shorter than one window, or count or length is below 1.
TokenMatrix sample_windows(std::span<const int32_t> tokens, int64_t count, int64_t length,
                           uint64_t seed);

// Windows of `length` tokens one behind the other from the start, at most `limit` of them (0: as
// many as fit); a rest shorter than a window is left out. Throws as sample_windows.
TokenMatrix consecutive_windows(std::span<const int32_t> tokens, int64_t length, int64_t limit);

// `count` windows shared out to texts by `weights` (positive; their sum times `count` below 2^63):
// the whole part of each share, then one more to those with the largest remainders, of equal ones
// to the first. A share may be 0.
std::vector<int64_t> share_windows(int64_t count, std::span<const int64_t> weights);

// The windows of several texts, of one length, as one matrix: each text's stay in their order and
// are spread over the whole, so that any stretch of it has about its share of each. `seed` decides
// where exactly; one text alone stays as it is. At most 2^20 windows.
TokenMatrix interleave_windows(std::span<const TokenMatrix> parts, uint64_t seed);

// SHA-256 of the sequences and their shape.
std::string tokens_digest(const TokenMatrix& tokens);

}  // namespace billm
