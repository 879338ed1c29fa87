// N:M masks as numbers: the table of docs/format.md, and every rank of every N:M.
#include <gtest/gtest.h>

#include <bit>

#include "src/pack/bits.h"
#include "support/random_layer.h"

namespace billm {
namespace {

struct Row {
  int n, m;
  uint32_t combinations;
  int ranks, bits;
  double per_weight;  // bits, 4 decimals
};

TEST(MaskWords, TableOfTheFormat) {
  constexpr Row kTable[] = {
      {4, 8, 70, 7, 43, 0.7679},  {5, 8, 56, 11, 64, 0.7273}, {3, 8, 56, 11, 64, 0.7273},
      {6, 8, 28, 11, 53, 0.6023}, {2, 8, 28, 11, 53, 0.6023}, {7, 8, 8, 1, 3, 0.3750},
      {1, 8, 8, 1, 3, 0.3750},    {2, 4, 6, 5, 13, 0.6500},   {8, 8, 1, 1, 0, 0.0}};
  for (const Row& row : kTable) {
    SCOPED_TRACE(std::to_string(row.n) + ":" + std::to_string(row.m));
    const MaskWords words = mask_words(row.n, row.m);
    EXPECT_EQ(words.combinations, row.combinations);
    EXPECT_EQ(words.ranks, row.ranks);
    EXPECT_EQ(words.bits, row.bits);
    EXPECT_NEAR(static_cast<double>(words.bits) / (words.ranks * row.m), row.per_weight, 5e-5);
  }
}

TEST(MaskWords, SmallestGroupOfTheFewestBits) {
  for (int m = 2; m <= 16; ++m) {
    for (int n = 1; n <= m; ++n) {
      const MaskWords words = mask_words(n, m);
      int best_ranks = 0, best_bits = 0;
      for (int ranks = 1; ranks <= 16; ++ranks) {
        // The smallest w with 2^w >= C^G.
        unsigned __int128 states = 1;
        for (int i = 0; i < ranks && states >> 64 == 0; ++i) states *= words.combinations;
        int bits = 0;
        while (bits <= 64 && (static_cast<unsigned __int128>(1) << bits) < states) ++bits;
        if (bits > 64) break;
        if (best_ranks == 0 || bits * best_ranks < best_bits * ranks) {
          best_ranks = ranks;
          best_bits = bits;
        }
      }
      EXPECT_EQ(words.ranks, best_ranks) << n << ":" << m;
      EXPECT_EQ(words.bits, best_bits) << n << ":" << m;
    }
  }
}

// Colexicographic order of sets is the numeric order of their bit masks.
TEST(MaskRanks, EverySetOfEveryPattern) {
  for (int m = 1; m <= 16; ++m) {
    const std::vector<uint16_t> ranks = mask_ranks(m);
    for (int n = 1; n <= m; ++n) {
      uint32_t rank = 0;
      for (uint32_t mask = 0; mask < uint32_t{1} << m; ++mask) {
        if (std::popcount(mask) != n) continue;
        ASSERT_EQ(mask_rank(mask), rank) << n << ":" << m;
        ASSERT_EQ(mask_from_rank(rank, n), mask) << n << ":" << m;
        ASSERT_EQ(ranks[mask], rank) << n << ":" << m;
        ++rank;
      }
      ASSERT_EQ(rank, binomial(m, n)) << n << ":" << m;
      // rank_bits is the smallest number of bits that holds the last rank.
      const int bits = rank_bits(m, n);
      EXPECT_LE(rank, uint64_t{1} << bits);
      EXPECT_TRUE(bits == 0 || rank > uint64_t{1} << (bits - 1)) << n << ":" << m;
    }
  }
}

TEST(Bits, StreamIsLeastSignificantFirst) {
  std::vector<std::byte> bytes(9);  // 68 bits
  put_bits(bytes.data(), 0, 0b101, 3);
  put_bits(bytes.data(), 3, 0, 0);
  put_bits(bytes.data(), 3, 0xffff0123456789abu, 64);
  put_bits(bytes.data(), 67, 1, 1);
  EXPECT_EQ(bytes[0], std::byte{(0xab << 3 & 0xff) | 5});
  EXPECT_EQ(get_bits(bytes.data(), 0, 3), 5u);
  EXPECT_EQ(get_bits(bytes.data(), 3, 64), 0xffff0123456789abu);
  EXPECT_EQ(get_bits(bytes.data(), 67, 1), 1u);
  EXPECT_EQ(get_bits(bytes.data(), 68, 0), 0u);
  EXPECT_TRUE(get_bit(bytes.data(), 2));
  EXPECT_FALSE(get_bit(bytes.data(), 1));
}

// Every cut of a stream in two, which two threads could write, against the serial writer.
TEST(Bits, FieldsAndTritsInParts) {
  test::Random random(5);
  std::vector<uint8_t> values(45);
  for (int width = 1; width <= 8; ++width) {
    for (uint8_t& value : values) value = static_cast<uint8_t>(random.below(256));
    const int64_t count = static_cast<int64_t>(values.size());
    std::vector<std::byte> expected(46);
    for (int64_t i = 0; i < count; ++i) put_bits(expected.data(), 3 + i * width, values[i], width);
    for (int64_t cut = 0; cut <= count; ++cut) {
      std::vector<std::byte> bytes(46);
      const std::span<const uint8_t> all(values);
      put_fields(bytes.data(), 3 + cut * width, all.subspan(cut), width);
      put_fields(bytes.data(), 3, all.first(cut), width);
      ASSERT_EQ(bytes, expected) << width << " bits, cut at " << cut;
    }
  }
  for (uint8_t& value : values) value = static_cast<uint8_t>(random.below(3));
  for (size_t first = 0; first < 5; ++first) {
    for (size_t cut = first; cut <= values.size(); ++cut) {
      std::vector<std::byte> bytes(9);
      const std::span<const uint8_t> all(values);
      put_trits(bytes.data(), static_cast<int64_t>(cut), all.subspan(cut));
      put_trits(bytes.data(), static_cast<int64_t>(first), all.subspan(first, cut - first));
      for (size_t i = first; i < values.size(); ++i) {
        ASSERT_EQ(static_cast<int>(bytes[i / 5]) / kPow3[i % 5] % 3, values[i]) << cut;
      }
    }
  }
}

}  // namespace
}  // namespace billm
