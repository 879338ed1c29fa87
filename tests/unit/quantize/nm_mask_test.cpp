// SI scores and N:M masks of STBLLM.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "billm/quantize/methods.h"
#include "support/compare.h"
#include "support/random_layer.h"

namespace billm {
namespace {

TEST(NmMask, KeepsTheBestOfEveryGroup) {
  test::Random random(1);
  for (int m = 2; m <= 16; ++m) {
    for (int n = 1; n <= m; ++n) {
      for (const int64_t cols : {1, 7, 48, 53}) {
        constexpr int64_t kRows = 3;
        std::vector<float> scores(static_cast<size_t>(kRows * cols));
        for (float& score : scores) score = static_cast<float>(random.below(5));  // many ties
        const NmPattern nm{n, m};
        const std::vector<uint8_t> keep = nm_mask(scores, kRows, cols, nm);
        for (int64_t row = 0; row < kRows; ++row) {
          for (int64_t first = 0; first < cols; first += m) {
            const int64_t columns = std::min<int64_t>(m, cols - first);
            int kept = 0;
            for (int64_t c = 0; c < columns; ++c) {
              const size_t at = static_cast<size_t>(row * cols + first + c);
              kept += keep[at];
              // Every kept one beats every pruned one; of equals the lower column is kept.
              for (int64_t other = 0; other < columns; ++other) {
                const size_t against = static_cast<size_t>(row * cols + first + other);
                if (keep[at] == 0 || keep[against] != 0) continue;
                ASSERT_TRUE(scores[at] > scores[against] ||
                            (scores[at] == scores[against] && c < other));
              }
            }
            ASSERT_EQ(kept, (columns * n + m - 1) / m) << nm.text() << " cols " << cols;
          }
        }
      }
    }
  }
}

TEST(NmMask, ByHandAndInactive) {
  EXPECT_EQ(nm_mask({3, 1, 2, 2, 0, 0, 9}, 1, 7, {2, 4}),
            (std::vector<uint8_t>{1, 0, 1, 0, 1, 0, 1}));
  EXPECT_EQ(nm_mask({1, 2, 3}, 1, 3, {}), (std::vector<uint8_t>{1, 1, 1}));
}

TEST(SiScores, Formula) {
  constexpr int64_t kRows = 5, kCols = 12;
  std::vector<float> w = test::random_normal(kRows * kCols, 2);
  w[3] = 0;
  for (int64_t i = 0; i < kRows; ++i) w[i * kCols + 7] = 0;  // a column of zeros
  CalibrationStats stats = test::correlated_stats(kCols, 50, 3);
  for (int64_t i = 0; i < kCols; ++i) {  // a dead one
    stats.xtx[i * kCols + 5] = stats.xtx[5 * kCols + i] = 0;
  }
  const Hessian hessian = make_hessian(stats, false, 0.01, 1);
  const std::vector<float> scores = si_scores({w.data(), kRows, kCols}, hessian);
  std::vector<float> expected;
  for (int64_t i = 0; i < kRows; ++i) {
    for (int64_t j = 0; j < kCols; ++j) {
      double row = 0, col = 0;
      for (int64_t k = 0; k < kCols; ++k) row += std::fabs(w[i * kCols + k]);
      for (int64_t k = 0; k < kRows; ++k) col += std::fabs(w[k * kCols + j]);
      const double a = std::fabs(w[i * kCols + j]);
      // |x_j| up to a common factor is the root of H_jj.
      const double input = std::pow(hessian.matrix[j * kCols + j], 0.25);
      expected.push_back(a == 0 ? 0.0f : static_cast<float>((a / col + a / row) * input));
    }
  }
  EXPECT_TRUE(test::close(scores, expected, {.relative = 1e-6}));
  for (int64_t i = 0; i < kRows; ++i) {
    EXPECT_EQ(scores[i * kCols + 5], 0.0f);
    EXPECT_EQ(scores[i * kCols + 7], 0.0f);
  }
}

}  // namespace
}  // namespace billm
