// Bit streams, least significant bit first, and the arithmetic of N:M mask ranks (docs/format.md).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace billm {

class BitWriter {
 public:
  // Appends the low `bits` (0..64) bits of `value`.
  void put(uint64_t value, int bits) {
    for (int done = 0; done < bits;) {
      if (used_ == 8) {
        bytes_.push_back(std::byte{0});
        used_ = 0;
      }
      const int take = bits - done < 8 - used_ ? bits - done : 8 - used_;
      const uint64_t part = (value >> done) & ((uint64_t{1} << take) - 1);
      bytes_.back() |= static_cast<std::byte>(part << used_);
      used_ += take;
      done += take;
    }
  }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
  int used_ = 8;  // bits used in the last byte
};

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
uint32_t mask_from_rank(uint32_t rank, int kept);

}  // namespace billm
