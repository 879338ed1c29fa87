// See bits.h.
#include "bits.h"

#include <atomic>
#include <bit>
#include <cstring>

namespace billm {
namespace {

// To a byte that another thread may write other bits or digits of.
void add_to(std::byte* byte, unsigned value) {
  std::atomic_ref(*reinterpret_cast<uint8_t*>(byte))
      .fetch_add(static_cast<uint8_t>(value), std::memory_order_relaxed);
}

// Bit i of the result is the lowest bit of byte i.
unsigned lowest_bits(const uint8_t* bytes) {
  uint64_t word;
  std::memcpy(&word, bytes, sizeof(word));
  return static_cast<unsigned>(((word & 0x0101010101010101u) * 0x0102040810204080u) >> 56);
}

}  // namespace

void put_fields(std::byte* plane, int64_t position, std::span<const uint8_t> values, int width) {
  std::byte* at = plane + position / 8;
  int used = static_cast<int>(position % 8);  // bits in `pending`
  unsigned pending = 0;
  bool shared = used != 0;  // whether the byte at `at` began before
  const unsigned mask = (1u << width) - 1;
  for (size_t i = 0; i < values.size();) {
    if (used == 0 && width == 1) {
      for (; i + 8 <= values.size(); i += 8) {
        *at++ = static_cast<std::byte>(lowest_bits(values.data() + i));
      }
      if (i == values.size()) break;
    }
    pending |= (values[i++] & mask) << used;
    used += width;
    if (used < 8) continue;
    if (shared) {
      add_to(at++, pending & 255);
    } else {
      *at++ = static_cast<std::byte>(pending & 255);
    }
    shared = false;
    pending >>= 8;
    used -= 8;
  }
  if (used > 0) add_to(at, pending);
}

void put_trits(std::byte* plane, int64_t index, std::span<const uint8_t> digits) {
  std::byte* at = plane + index / 5;
  size_t i = 0;
  const auto put_some = [&](int64_t place) {
    unsigned sum = 0;
    for (; place < 5 && i < digits.size(); ++place) {
      sum += digits[i++] * static_cast<unsigned>(kPow3[place]);
    }
    add_to(at++, sum);
  };
  if (index % 5 != 0) put_some(index % 5);
  for (; i + 5 <= digits.size(); i += 5) {
    const uint8_t* d = digits.data() + i;
    *at++ = static_cast<std::byte>(d[0] + 3 * d[1] + 9 * d[2] + 27 * d[3] + 81 * d[4]);
  }
  if (i < digits.size()) put_some(0);
}

void put_bits(std::byte* plane, int64_t position, uint64_t value, int bits) {
  for (int done = 0; done < bits;) {
    const int64_t at = position + done;
    const int shift = static_cast<int>(at & 7);
    const int take = bits - done < 8 - shift ? bits - done : 8 - shift;
    const uint64_t part = (value >> done) & ((uint64_t{1} << take) - 1);
    plane[at >> 3] |= static_cast<std::byte>(part << shift);
    done += take;
  }
}

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

std::vector<uint16_t> mask_ranks(int columns) {
  std::vector<uint16_t> ranks(size_t{1} << columns);
  for (uint32_t mask = 1; mask < ranks.size(); ++mask) {
    const int top = std::bit_width(mask) - 1;
    ranks[mask] = static_cast<uint16_t>(ranks[mask & ~(uint32_t{1} << top)] +
                                        binomial(top, std::popcount(mask)));
  }
  return ranks;
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
