// Windows of a mixture of texts: how they are shared out and in which order they stand. Which ones
// they are is compared with numpy by tests/e2e/mixture_test.py.
#include <gtest/gtest.h>

#include <algorithm>

#include "billm/checkpoint/token_source.h"

namespace billm {
namespace {

std::vector<int64_t> shares(int64_t count, std::vector<int64_t> weights) {
  return share_windows(count, weights);
}

TEST(ShareWindows, LargestRemainders) {
  EXPECT_EQ(shares(8, {3, 1}), (std::vector<int64_t>{6, 2}));
  EXPECT_EQ(shares(7, {3, 1}), (std::vector<int64_t>{5, 2}));  // 5.25, 1.75
  EXPECT_EQ(shares(6, {3, 1}), (std::vector<int64_t>{5, 1}));  // 4.5, 1.5: the first of equals
  EXPECT_EQ(shares(10, {1, 1, 1}), (std::vector<int64_t>{4, 3, 3}));
  EXPECT_EQ(shares(11, {1, 1, 1}), (std::vector<int64_t>{4, 4, 3}));
  EXPECT_EQ(shares(3, {100, 1}), (std::vector<int64_t>{3, 0}));
  EXPECT_EQ(shares(5, {7}), (std::vector<int64_t>{5}));
  // The largest that --calib lets through.
  const int64_t most = 1'000'000'000'000, count = 1 << 20;
  EXPECT_EQ(shares(count, {most, most, most}),
            (std::vector<int64_t>{count / 3 + 1, count / 3, count / 3}));
}

TokenMatrix numbered(int64_t rows, int32_t first) {
  TokenMatrix matrix{rows, 2, {}};
  for (int32_t i = 0; i < 2 * rows; ++i) matrix.values.push_back(first + i);
  return matrix;
}

TEST(InterleaveWindows, KeepsEachTextsOrderAndSpreadsIt) {
  const std::vector<TokenMatrix> parts = {numbered(48, 0), numbered(16, 1000)};
  const TokenMatrix mixed = interleave_windows(parts, 0);
  EXPECT_EQ(mixed.rows, 64);
  EXPECT_EQ(mixed.cols, 2);
  std::vector<int32_t> first, second;
  for (int64_t i = 0; i < mixed.rows; ++i) {
    EXPECT_EQ(mixed.row(i)[1], mixed.row(i)[0] + 1);
    (mixed.row(i)[0] < 1000 ? first : second).push_back(mixed.row(i)[0]);
    // Of any beginning each text has its share, at most one window off.
    EXPECT_NEAR(static_cast<double>(second.size()), static_cast<double>(i + 1) / 4, 1.001) << i;
  }
  EXPECT_TRUE(std::is_sorted(first.begin(), first.end()));
  EXPECT_TRUE(std::is_sorted(second.begin(), second.end()));
  EXPECT_EQ(first.size(), 48u);
  EXPECT_EQ(interleave_windows(parts, 0).values, mixed.values);
  EXPECT_NE(interleave_windows(parts, 1).values, mixed.values);
}

TEST(InterleaveWindows, OneTextStaysAsItIs) {
  const std::vector<TokenMatrix> one = {numbered(100, 0)};
  EXPECT_EQ(interleave_windows(one, 5).values, one[0].values);
}

}  // namespace
}  // namespace billm
