// Codes on a trellis: the table's digest, gains, segments, what a code is worth, what is refused.
#include "billm/codes/trellis.h"

#include <gtest/gtest.h>

#include <cmath>
#include <span>

#include "billm/base/error.h"
#include "billm/base/sha256.h"
#include "support/random_layer.h"

namespace billm::test {
namespace {

TEST(Trellis, TheTableIsTheFormats) {
  EXPECT_EQ(
      sha256_hex(std::as_bytes(std::span(&kTrellisTable, 1))),
      "66c1bffc430dcad5dfec5d12ec01db8efd016f792a2ae6231b83cd445863bb00");  // docs/format.md,
                                                                            // "Layout `trellis`"
  int largest = 0;
  for (const auto& entries : kTrellisTable) {
    for (const int8_t entry : entries) largest = std::max(largest, std::abs(int{entry}));
  }
  EXPECT_EQ(largest, 127);
}

TEST(Trellis, GainsFollowFromTheRates) {
  // Sums of all planes stay exact in fp32: 24 bits.
  for (int rate = 1; rate <= 4; ++rate) {
    for (int second = 1; second <= 4; ++second) {
      const std::vector<int32_t> gains = trellis_gains({rate, second, second, second});
      int64_t most = 0;
      for (const int32_t gain : gains) {
        EXPECT_GT(gain, 0);
        most += 127 * int64_t{gain};
      }
      EXPECT_LT(most, 1 << 24);
      EXPECT_EQ(gains[0], trellis_gains({rate})[0]);
      const std::vector<float> residuals = trellis_residuals({rate, second});
      EXPECT_EQ(residuals[0], 1.0f);
      EXPECT_LT(residuals[1], 1.0f);
      EXPECT_NEAR(gains[1], residuals[1] * static_cast<float>(trellis_gains({second})[0]), 0.51);
    }
  }
}

TEST(Trellis, Segments) {
  const auto segments = [](int64_t rows) {
    const TrellisFormat format = {rows, 4, {4}};
    return std::pair(format.segments(), format.segment_rows());
  };
  EXPECT_EQ(segments(1), std::pair(int64_t{1}, int64_t{64}));
  EXPECT_EQ(segments(512), std::pair(int64_t{1}, int64_t{512}));
  EXPECT_EQ(segments(513), std::pair(int64_t{2}, int64_t{320}));
  EXPECT_EQ(segments(576), std::pair(int64_t{2}, int64_t{320}));
  EXPECT_EQ(segments(1536), std::pair(int64_t{3}, int64_t{512}));
  EXPECT_EQ(segments(4096), std::pair(int64_t{8}, int64_t{512}));
  for (int64_t rows = 1; rows < 5000; rows += 7) {
    const auto [count, size] = segments(rows);
    EXPECT_LE(size, 512) << rows;
    EXPECT_LT((count - 1) * size, rows);
    EXPECT_GE(count * size, rows);
  }
  const TrellisFormat format = {576, 10, {4, 1}};
  EXPECT_EQ(format.groups(), 3);
  EXPECT_EQ(format.group_bits(0), 2 * 4 + 4 * 576);
  EXPECT_EQ(format.group_bits(1), 2 * 7 + 576);
  EXPECT_EQ(format.bits(), 1.25);
}

TEST(Trellis, ValueOfACode) {
  const TrellisCodes codes = random_trellis(70, 10, {4, 2}, 5);
  check_codes(codes);
  const std::vector<int32_t> gains = trellis_gains({4, 2});
  const std::vector<float> weight = dequantize(codes, 2);
  EXPECT_EQ(weight, dequantize(codes));
  for (int64_t row = 0; row < 70; ++row) {
    for (int64_t col = 0; col < 10; ++col) {
      const auto entry = [&](int p) {
        return double(kTrellisTable[codes.states[p][col / 4 * 70 + row]][col % 4]);
      };
      const double sum = gains[0] * entry(0) + gains[1] * entry(1);
      EXPECT_EQ(weight[row * 10 + col],
                static_cast<float>(double(codes.scale[row]) * sum * 0x1p-19));
    }
  }
}

void expect_broken(const TrellisCodes& codes) { EXPECT_THROW(check_codes(codes), Error); }

TEST(Trellis, WhatIsRefused) {
  const TrellisCodes good = random_trellis(600, 9, {3, 4}, 6);
  check_codes(good);
  TrellisCodes bad = good;
  bad.states[0][1] ^= 0x80;  // not what the row before left
  expect_broken(bad);
  bad = good;
  bad.states[1][320] ^= 0x80;  // the start of a segment is free, its second row is not
  EXPECT_NO_THROW(check_codes(bad));
  bad = good;
  bad.states[1].pop_back();
  expect_broken(bad);
  bad = good;
  bad.states.pop_back();
  expect_broken(bad);
  for (const float scale : {-1.0f, -0.0f, INFINITY, NAN, 1.0001f, 70000.0f}) {
    bad = good;
    bad.scale[3] = scale;
    expect_broken(bad);
  }
  for (const std::vector<int>& rates : {std::vector<int>{}, {0}, {5}, {4, 4, 4, 4, 4}, {4, -1}}) {
    EXPECT_THROW(check_trellis_format({4, 4, rates}, "here"), Error);
  }
  EXPECT_THROW(check_trellis_format({0, 4, {4}}, "here"), Error);
  EXPECT_THROW(check_trellis_format({4, int64_t{1} << 31, {4}}, "here"), Error);
}

}  // namespace
}  // namespace billm::test
