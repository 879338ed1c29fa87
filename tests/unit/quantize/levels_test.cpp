// Levels of a tile: rounding to the stored grid, and their least-squares update; salient columns.
#include "src/quantize/levels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "src/quantize/saliency.h"
#include "support/random_layer.h"

namespace billm {
namespace {

using kernels::kColumnSets;
using kernels::kMaxLevels;
using kernels::kMaxUnknowns;
using kernels::kTileRows;

RegionFormat shape_of(ScaleFormat format, OffsetKind offsets) {
  RegionFormat shape;
  shape.rows = shape.cols = 64;
  shape.classes = 3;
  shape.salient_classes = 2;
  shape.scale_format = format;
  shape.offset_kind = offsets;
  return shape;
}

kernels::Levels random_levels(uint32_t seed) {
  test::Random random(seed);
  kernels::Levels levels;
  levels.classes[0] = 3;
  levels.classes[1] = 2;
  for (int lane = 0; lane < kTileRows; ++lane) {
    for (int set = 0; set < kColumnSets; ++set) {
      for (int k = 0; k < levels.classes[set]; ++k) levels.level[set][k][lane] = random.normal();
    }
    levels.offset[lane] = 0.5f * random.normal();
  }
  return levels;
}

TEST(LevelGrid, RoundsToWhatTheFileCanSay) {
  for (const ScaleFormat format : {ScaleFormat::kLog8, ScaleFormat::kF16, ScaleFormat::kF32}) {
    for (const OffsetKind offsets : {OffsetKind::kNone, OffsetKind::kBlock}) {
      const LevelGrid grid(shape_of(format, offsets), 4.0f);
      const kernels::Levels before = random_levels(1);
      kernels::Levels levels = before;
      grid.round(&levels);
      for (int lane = 0; lane < kTileRows; ++lane) {
        float largest = 0;
        for (int set = 0; set < kColumnSets; ++set) {
          std::vector<float> expected;
          for (int k = 0; k < levels.classes[set]; ++k) {
            expected.push_back(grid.round_scale(std::fabs(before.level[set][k][lane])));
          }
          std::sort(expected.begin(), expected.end());
          for (int k = 0; k < levels.classes[set]; ++k) {
            const float level = levels.level[set][k][lane];
            ASSERT_EQ(level, expected[static_cast<size_t>(k)]);
            ASSERT_EQ(grid.round_scale(level), level);
            largest = std::max(largest, level);
          }
        }
        if (offsets == OffsetKind::kNone) {
          ASSERT_EQ(levels.offset[lane], before.offset[lane]);
        } else if (format == ScaleFormat::kLog8) {
          ASSERT_EQ(levels.offset[lane],
                    offset8_decode(offset8_encode(before.offset[lane], largest), largest));
        } else {
          ASSERT_EQ(levels.offset[lane], grid.round_scale(before.offset[lane]));
        }
      }
    }
  }
  const LevelGrid log8(shape_of(ScaleFormat::kLog8, OffsetKind::kNone), 4.0f);
  EXPECT_EQ(log8.round_scale(5.0f), 4.0f);
  EXPECT_EQ(log8.round_scale(2.02f), 2.0f);
  EXPECT_EQ(LevelGrid(shape_of(ScaleFormat::kF32, OffsetKind::kNone), 0).round_scale(0.1f), 0.1f);
}

TEST(LevelGrid, CopiesOneLane) {
  const kernels::Levels from = random_levels(2);
  kernels::Levels to = random_levels(3);
  const kernels::Levels before = to;
  copy_levels(from, 5, &to);
  for (int lane = 0; lane < kTileRows; ++lane) {
    const kernels::Levels& expected = lane == 5 ? from : before;
    EXPECT_EQ(to.level[0][2][lane], expected.level[0][2][lane]);
    EXPECT_EQ(to.level[1][1][lane], expected.level[1][1][lane]);
    EXPECT_EQ(to.offset[lane], expected.offset[lane]);
  }
}

// Normal equations of `lane` from a random design [samples][unknowns] and a known solution.
TEST(SolveLevels, SolvesTheNormalEquations) {
  test::Random random(4);
  for (const bool with_offset : {false, true}) {
    kernels::Levels levels = random_levels(5);
    const kernels::Levels before = levels;
    const int unknown[] = {0, 1, 2, 3, 4, kMaxUnknowns - 1};  // K = 3, S = 2
    const int count = with_offset ? 6 : 5;
    constexpr int kSamples = 40, kLane = 9, kUnused = 1;
    std::vector<float> gram(kMaxUnknowns * kMaxUnknowns * kTileRows, 0.0f);
    std::vector<float> right(kMaxUnknowns * kTileRows, 0.0f);
    double solution[6];
    for (double& x : solution) x = random.normal();
    for (int s = 0; s < kSamples; ++s) {
      double row[6], y = 0;
      for (int i = 0; i < count; ++i) {
        row[i] = i == kUnused ? 0.0 : random.normal();  // no weight is of class 1
        y += row[i] * solution[i];
      }
      for (int i = 0; i < count; ++i) {
        right[unknown[i] * kTileRows + kLane] += static_cast<float>(row[i] * y);
        for (int j = i; j < count; ++j) {
          gram[(unknown[i] * kMaxUnknowns + unknown[j]) * kTileRows + kLane] +=
              static_cast<float>(row[i] * row[j]);
        }
      }
    }
    solve_levels(gram.data(), right.data(), kLane, with_offset, &levels);
    for (int i = 0; i < 5; ++i) {
      const float level = levels.level[i / kMaxLevels][i % kMaxLevels][kLane];
      if (i == kUnused) {
        EXPECT_EQ(level, before.level[0][1][kLane]);
      } else {
        EXPECT_NEAR(level, solution[i], 1e-4);
      }
    }
    if (with_offset) {
      EXPECT_NEAR(levels.offset[kLane], solution[5], 1e-4);
    }
    EXPECT_EQ(levels.level[0][0][8], before.level[0][0][8]);  // other lanes stay
  }
}

TEST(SolveLevels, SingularSystemsLeaveFiniteLevels) {
  kernels::Levels levels = random_levels(6);
  const kernels::Levels before = levels;
  std::vector<float> gram(kMaxUnknowns * kMaxUnknowns * kTileRows, 0.0f);
  std::vector<float> right(kMaxUnknowns * kTileRows, 1.0f);
  solve_levels(gram.data(), right.data(), 0, false, &levels);
  EXPECT_EQ(levels.level[0][0][0], before.level[0][0][0]);
  std::fill(gram.begin(), gram.end(), 1.0f);  // rank 1
  solve_levels(gram.data(), right.data(), 0, true, &levels);
  std::fill(gram.begin(), gram.end(), NAN);
  solve_levels(gram.data(), right.data(), 0, true, &levels);
  for (int set = 0; set < kColumnSets; ++set) {
    for (int k = 0; k < levels.classes[set]; ++k) {
      EXPECT_TRUE(std::isfinite(levels.level[set][k][0]));
    }
  }
}

TEST(ChooseSalient, TakesTheHeavyColumns) {
  constexpr int64_t kRows = 70, kCols = 100;
  std::vector<float> w = test::random_normal(kRows * kCols, 7, 0.01f);
  for (int64_t i = 0; i < kRows; ++i) {
    for (const int64_t col : {3, 17, 90}) w[i * kCols + col] *= 100;
  }
  const Hessian hessian = make_hessian(test::correlated_stats(kCols, 400, 8), true, 0.01, 1);
  RegionFormat shape;
  shape.rows = kRows;
  shape.cols = kCols;
  shape.block_size = 64;
  for (const SearchObjective objective : {SearchObjective::kWeights, SearchObjective::kSaliency}) {
    const std::vector<uint8_t> salient =
        choose_salient({w.data(), kRows, kCols}, hessian, {}, shape, objective, 20, 1);
    ASSERT_EQ(salient.size(), static_cast<size_t>(kCols));
    EXPECT_EQ(salient[3] + salient[17] + salient[90], 3);
    EXPECT_LE(std::accumulate(salient.begin(), salient.begin() + 64, 0), 20);
    EXPECT_LE(std::accumulate(salient.begin() + 64, salient.end(), 0), 20);
    EXPECT_EQ(choose_salient({w.data(), kRows, kCols}, hessian, {}, shape, objective, 20, 3),
              salient);
  }
  const std::vector<uint8_t> none =
      choose_salient({w.data(), kRows, kCols}, hessian, {}, shape, SearchObjective::kWeights, 0, 1);
  EXPECT_EQ(none, std::vector<uint8_t>(static_cast<size_t>(kCols), 0));
}

}  // namespace
}  // namespace billm
