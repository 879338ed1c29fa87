// Bit streams, least significant bit first, and the arithmetic of N:M mask ranks (docs/format.md).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace billm {

inline constexpr int kPow3[5] = {1, 3, 9, 27, 81};  // worth of a byte's base-3 digits

// Writing into planes that are zero before. Several threads may write one plane: bytes in which
// their bits meet are added to atomically, all others belong to one of them.
//
// The low `width` (1..8) bits of each value, from bit `position` on.
void put_fields(std::byte* plane, int64_t position, std::span<const uint8_t> values, int width);
// Base-3 digits, five in a byte, from digit `index` on.
void put_trits(std::byte* plane, int64_t index, std::span<const uint8_t> digits);
// The low `bits` (0..64) bits of `value` at bit `position`. Not for bytes shared between threads.
void put_bits(std::byte* plane, int64_t position, uint64_t value, int bits);

// `bits` (0..64) bits from bit `position` on. The caller keeps position + bits inside the bytes.
inline uint64_t get_bits(const std::byte* bytes, int64_t position, int bits) {
  uint64_t value = 0;
  for (int done = 0; done < bits;) {
    const int64_t at = position + done;
    const int shift = static_cast<int>(at & 7);
    const int take = bits - done < 8 - shift ? bits - done : 8 - shift;
    const uint64_t part =
        (static_cast<uint64_t>(bytes[at >> 3]) >> shift) & ((uint64_t{1} << take) - 1);
    value |= part << done;
    done += take;
  }
  return value;
}
inline bool get_bit(const std::byte* bytes, int64_t position) {
  return ((static_cast<unsigned>(bytes[position >> 3]) >> (position & 7)) & 1) != 0;
}

// C(n, k), n <= 16.
constexpr uint32_t binomial(int n, int k) {
  if (k < 0 || k > n) return 0;
  uint64_t result = 1;
  for (int i = 1; i <= k; ++i) result = result * static_cast<uint64_t>(n - k + i) / i;
  return static_cast<uint32_t>(result);
}

// How the ranks of an N:M mask are grouped into words.
struct MaskWords {
  uint32_t combinations;  // C(M, N)
  int ranks;              // G: ranks per word
  int bits;               // w: bits per word
};
MaskWords mask_words(int n, int m);
// Bits of one rank among C(columns, kept).
int rank_bits(int columns, int kept);

// Colexicographic rank of a set of positions given as a bit mask; its inverse for `kept` positions.
uint32_t mask_rank(uint32_t mask);
std::vector<uint16_t> mask_ranks(int columns);  // of all 2^columns masks, columns <= 16
uint32_t mask_from_rank(uint32_t rank, int kept);

}  // namespace billm
