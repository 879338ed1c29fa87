// Token ids as a matrix of equally long sequences, and how a text's tokens are cut into one.
// Files of ids are read by npy.h, texts by texts.h.
#pragma once

#include <cstdint>
#include <span>
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

}  // namespace billm
