// Mask ranks: see bits.h.
#include "bits.h"

#include <bit>

namespace billm {

MaskWords mask_words(int n, int m) {
  const uint32_t combinations = binomial(m, n);
  MaskWords best{combinations, 1, rank_bits(m, n)};
  unsigned __int128 states = 1;  // C^G
  for (int ranks = 1; ranks <= 16; ++ranks) {
    states *= combinations;
    const unsigned __int128 largest = states - 1;
    if (largest >> 64 != 0) break;
    const int bits = std::bit_width(static_cast<uint64_t>(largest));
    if (bits * best.ranks < best.bits * ranks) best = {combinations, ranks, bits};
  }
  return best;
}

int rank_bits(int columns, int kept) { return std::bit_width(binomial(columns, kept) - 1); }

uint32_t mask_rank(uint32_t mask) {
  uint32_t rank = 0;
  for (int i = 1; mask != 0; ++i, mask &= mask - 1) {
    rank += binomial(std::countr_zero(mask), i);
  }
  return rank;
}

uint32_t mask_from_rank(uint32_t rank, int kept) {
  uint32_t mask = 0;
  for (int i = kept; i >= 1; --i) {
    int position = i - 1;
    while (binomial(position + 1, i) <= rank) ++position;
    rank -= binomial(position, i);
    mask |= uint32_t{1} << position;
  }
  return mask;
}

}  // namespace billm
