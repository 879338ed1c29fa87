// Every kernel of row_tiles.h against a plain loop in double, and the same bits on every target.
#include "kernels/cpu/row_tiles.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/compare.h"
#include "unit/kernels/tile_testing.h"

namespace billm::kernels {
namespace {

using test::close;

constexpr int kWidths[] = {1, 3, 4, 7, 64, 130};

// Distance of t from the nearest level of its column set.
double nearest_distance(const Levels& levels, int set, int lane, double t) {
  double best = INFINITY;
  for (int k = 0; k < levels.classes[set]; ++k) {
    for (const double sign : {-1.0, 1.0}) {
      best = std::min(
          best, std::fabs(t - (double{levels.offset[lane]} + sign * levels.level[set][k][lane])));
    }
  }
  return best;
}

// Distance of t from the nearest value that a weight may have: a level, or an integer of the grid.
double distance(const Problem& problem, int c, int lane, double t) {
  return problem.kept(c, lane)
             ? nearest_distance(problem.levels, problem.set[static_cast<size_t>(c)], lane, t)
             : grid_distance(problem.grid, lane, t);
}

// Signs, classes, values and delta say the same thing; loss is |delta R|^2.
void expect_consistent(const Problem& problem, const Coded& coded) {
  const int width = problem.triangle.width;
  std::vector<float> losses, expected;
  for (int lane = 0; lane < kTileRows; ++lane) {
    double loss = 0;
    for (int c = 0; c < width; ++c) {
      const int set = problem.set[static_cast<size_t>(c)];
      const float sign = coded.sign.at(c, lane), q = coded.q.at(c, lane);
      if (!problem.kept(c, lane)) {
        ASSERT_EQ(sign, 0.0f);
        const float code = coded.cls.at(c, lane);
        if (problem.mixed) {
          ASSERT_TRUE(code >= 0 && code <= problem.grid.last && code == std::floor(code));
        }
        ASSERT_EQ(
            q, problem.mixed ? (code - problem.grid.zero[lane]) * problem.grid.step[lane] : 0.0f);
      } else {
        const auto cls = static_cast<int>(coded.cls.at(c, lane));
        ASSERT_TRUE(sign == 1.0f || sign == -1.0f);
        ASSERT_TRUE(cls >= 0 && cls < problem.levels.classes[set]);
        ASSERT_EQ(q, problem.levels.offset[lane] + sign * problem.levels.level[set][cls][lane]);
      }
      ASSERT_NEAR(coded.delta.at(c, lane), problem.w.at(c, lane) - q, 1e-5);
      double error = 0;
      for (int i = 0; i <= c; ++i) error += coded.delta.at(i, lane) * problem.triangle.r(i, c);
      loss += error * error;
    }
    losses.push_back(coded.loss[lane]);
    expected.push_back(static_cast<float>(loss));
  }
  EXPECT_TRUE(close(losses, expected, {.absolute = 1e-5, .relative = 1e-4}));
}

template <typename Body>
void for_problems(Body&& body) {
  for (const int width : kWidths) {
    for (const auto& [classes, salient] : {std::pair{1, 0}, {2, 0}, {2, 2}, {3, 2}, {3, 3}}) {
      for (const int variant : {0, 1, 2, 3}) {
        SCOPED_TRACE("width " + std::to_string(width) + " K " + std::to_string(classes) + " S " +
                     std::to_string(salient) + " variant " + std::to_string(variant));
        Problem problem(width, classes, salient, variant % 2 == 1, variant >= 2, 11);
        body(problem);
        if (variant % 2 == 0) continue;
        problem.mix(variant == 1 ? 8 : 3);
        SCOPED_TRACE("with integers");
        body(problem);
      }
    }
  }
}

TEST(RowTiles, AccumulateFeedback) {
  for (const int width : kWidths) {
    for (const int64_t count : {0, 1, 5, 128}) {
      const int64_t stride = width + 3;
      const Tile d(test::random_normal(count * kTileRows, 1));
      const std::vector<float> factor = test::random_normal(count * stride, 2);
      Tile out(test::random_normal(int64_t{width} * kTileRows, 3));
      std::vector<float> expected(out.span().begin(), out.span().end());
      for (int c = 0; c < width; ++c) {
        for (int lane = 0; lane < kTileRows; ++lane) {
          double sum = out.at(c, lane);
          for (int64_t i = 0; i < count; ++i) {
            sum += double{d.at(i, lane)} * factor[static_cast<size_t>(i * stride + c)];
          }
          expected[static_cast<size_t>(c * kTileRows + lane)] = static_cast<float>(sum);
        }
      }
      accumulate_feedback(d.get(), count, factor.data(), stride, width, out.get());
      EXPECT_TRUE(close(out.span(), expected, {.absolute = 1e-4, .relative = 1e-5}));
    }
  }
}

TEST(RowTiles, MultiplyAndSolveFactor) {
  for (const int width : kWidths) {
    SCOPED_TRACE(width);
    const Triangle triangle(width, 4);
    const Tile x(test::random_normal(int64_t{width} * kTileRows, 5));
    std::vector<float> expected;
    for (int c = 0; c < width; ++c) {
      for (int lane = 0; lane < kTileRows; ++lane) {
        double sum = 0;
        for (int i = 0; i <= c; ++i) sum += x.at(i, lane) * triangle.r(i, c);
        expected.push_back(static_cast<float>(sum));
      }
    }
    Tile y(int64_t{width} * kTileRows);
    multiply_factor(triangle.factor(), x.get(), y.get());
    EXPECT_TRUE(close(y.span(), expected, {.absolute = 1e-4}));

    // solve(multiply(x)) is x; solving grows rounding errors, so it is judged by its image.
    Tile solved(int64_t{width} * kTileRows), image(int64_t{width} * kTileRows);
    solve_factor(triangle.factor(), y.get(), solved.get());
    multiply_factor(triangle.factor(), solved.get(), image.get());
    double largest = 1;
    for (const float value : solved.span()) largest = std::max<double>(largest, std::fabs(value));
    EXPECT_TRUE(close(image.span(), y.span(), {.absolute = 1e-5 * largest}));
    if (width <= 7) {
      EXPECT_TRUE(close(solved.span(), x.span(), {.absolute = 1e-4}));
    }
    Tile in_place(y);
    solve_factor(triangle.factor(), in_place.get(), in_place.get());
    EXPECT_TRUE(in_place.same_bits(solved));
  }
}

TEST(RowTiles, CodeWithFeedbackTakesTheNearestToItsTarget) {
  for_problems([](const Problem& problem) {
    Coded coded(problem);
    code_with_feedback(problem.triangle.factor(), problem.levels, problem.w.get(), coded.codes,
                       coded.delta.get(), coded.loss.get());
    expect_consistent(problem, coded);
    for (int c = 0; c < problem.triangle.width; ++c) {
      for (int lane = 0; lane < kTileRows; ++lane) {
        if (!problem.kept(c, lane) && !problem.mixed) continue;
        double target = 0;
        for (int i = 0; i < c; ++i) target += coded.delta.at(i, lane) * problem.triangle.r(i, c);
        target = problem.w.at(c, lane) + target / problem.triangle.r(c, c);
        ASSERT_NEAR(std::fabs(target - coded.q.at(c, lane)), distance(problem, c, lane, target),
                    1e-4 * (1 + std::fabs(target)));
      }
    }
  });
}

TEST(RowTiles, CodeNearestTakesTheNearest) {
  for_problems([](const Problem& problem) {
    Coded coded(problem);
    code_nearest(problem.triangle.factor(), problem.levels, problem.w.get(), coded.codes,
                 coded.delta.get(), coded.loss.get());
    expect_consistent(problem, coded);
    for (int c = 0; c < problem.triangle.width; ++c) {
      for (int lane = 0; lane < kTileRows; ++lane) {
        if (!problem.kept(c, lane) && !problem.mixed) continue;
        const double w = problem.w.at(c, lane);
        ASSERT_NEAR(std::fabs(w - coded.q.at(c, lane)), distance(problem, c, lane, w), 1e-6);
      }
    }
  });
}

TEST(RowTiles, TiesTakeTheLowerClassAndPlus) {
  Problem problem(4, 3, 0, false, false, 1);
  const float w[] = {0.0f, -0.0f, 1.5f, -3.0f};  // levels 1, 2, 4: thresholds 1.5 and 3
  for (int lane = 0; lane < kTileRows; ++lane) {
    for (int k = 0; k < 3; ++k) problem.levels.level[0][k][lane] = static_cast<float>(1 << k);
    for (int c = 0; c < 4; ++c) problem.w[c * kTileRows + lane] = w[c];
  }
  Coded coded(problem);
  code_nearest(problem.triangle.factor(), problem.levels, problem.w.get(), coded.codes,
               coded.delta.get(), coded.loss.get());
  for (int lane = 0; lane < kTileRows; ++lane) {
    EXPECT_EQ(coded.q.at(0, lane), 1.0f);
    EXPECT_EQ(coded.q.at(1, lane), 1.0f);
    EXPECT_EQ(coded.q.at(2, lane), 1.0f);
    EXPECT_EQ(coded.q.at(3, lane), -2.0f);
  }
}

TEST(RowTiles, DescendIsCoordinateDescent) {
  for_problems([](const Problem& problem) {
    const int width = problem.triangle.width;
    Coded coded(problem);
    code_nearest(problem.triangle.factor(), problem.levels, problem.w.get(), coded.codes,
                 coded.delta.get(), coded.loss.get());
    const Tile before(coded.q), old_loss(coded.loss);
    Tile residual(int64_t{width} * kTileRows);
    multiply_factor(problem.triangle.factor(), coded.delta.get(), residual.get());
    const Tile start(residual);
    descend_codes(problem.triangle.factor(), problem.levels, coded.codes, coded.delta.get(),
                  residual.get(), coded.loss.get());
    expect_consistent(problem, coded);
    Tile image(int64_t{width} * kTileRows);
    multiply_factor(problem.triangle.factor(), coded.delta.get(), image.get());
    EXPECT_TRUE(close(residual.span(), image.span(), {.absolute = 1e-4}));
    for (int lane = 0; lane < kTileRows; ++lane) {
      ASSERT_LE(coded.loss[lane], old_loss[lane] * (1 + 1e-5) + 1e-6);
      // Replay: each weight's new value is nearest to its target given all the others.
      std::vector<double> r;
      for (int j = 0; j < width; ++j) r.push_back(start.at(j, lane));
      for (int c = 0; c < width; ++c) {
        double dot = 0, norm = 0;
        for (int j = c; j < width; ++j) {
          dot += r[static_cast<size_t>(j)] * problem.triangle.r(c, j);
          norm += problem.triangle.r(c, j) * problem.triangle.r(c, j);
        }
        const double target = before.at(c, lane) + dot / norm;
        if (problem.kept(c, lane) || problem.mixed) {
          ASSERT_NEAR(std::fabs(target - coded.q.at(c, lane)), distance(problem, c, lane, target),
                      1e-4 * (1 + std::fabs(target)));
        }
        const double change = double{coded.q.at(c, lane)} - before.at(c, lane);
        for (int j = c; j < width; ++j) {
          r[static_cast<size_t>(j)] -= change * problem.triangle.r(c, j);
        }
      }
    }
  });
}

// Other levels for the same signs and classes.
Levels moved(const Levels& levels) {
  Levels other = levels;
  for (int lane = 0; lane < kTileRows; ++lane) {
    other.offset[lane] *= 0.5f;
    for (auto& set : other.level) {
      for (auto& level : set) level[lane] *= 1.25f;
    }
  }
  return other;
}

TEST(RowTiles, Requantize) {
  for_problems([](Problem problem) {
    Coded coded(problem);
    code_with_feedback(problem.triangle.factor(), problem.levels, problem.w.get(), coded.codes,
                       coded.delta.get(), coded.loss.get());
    const Tile sign(coded.sign), cls(coded.cls);
    problem.levels = moved(problem.levels);
    requantize(problem.triangle.factor(), problem.levels, problem.w.get(), coded.codes,
               coded.delta.get());
    EXPECT_TRUE(coded.sign.same_bits(sign));
    EXPECT_TRUE(coded.cls.same_bits(cls));
    Tile image(Coded::size(problem));  // the loss, which requantize leaves to its caller
    multiply_factor(problem.triangle.factor(), coded.delta.get(), image.get());
    for (int lane = 0; lane < kTileRows; ++lane) {
      coded.loss[lane] = 0;
      for (int c = 0; c < problem.triangle.width; ++c) {
        coded.loss[lane] += image.at(c, lane) * image.at(c, lane);
      }
    }
    expect_consistent(problem, coded);
  });
}

struct Equations {
  explicit Equations(const Problem& problem, bool with_offset, const Coded& coded)
      : scratch(2 * kMaxUnknowns * Coded::size(problem)) {
    Tile target(Coded::size(problem));
    multiply_factor(problem.triangle.factor(), problem.w.get(), target.get());
    level_equations(problem.triangle.factor(), coded.codes, problem.levels.classes, with_offset,
                    target.get(), scratch.get(), gram.get(), right.get());
  }
  Tile scratch;
  Tile gram{int64_t{kMaxUnknowns} * kMaxUnknowns * kTileRows};
  Tile right{int64_t{kMaxUnknowns} * kTileRows};
};

TEST(RowTiles, LevelEquations) {
  for (const bool with_offset : {false, true}) {
    for_problems([&](const Problem& problem) {
      const int width = problem.triangle.width;
      Coded coded(problem);
      code_with_feedback(problem.triangle.factor(), problem.levels, problem.w.get(), coded.codes,
                         coded.delta.get(), coded.loss.get());
      const Equations equations(problem, with_offset, coded);
      std::vector<float> actual, expected;
      for (int lane = 0; lane < kTileRows; lane += 7) {
        // Column u of the design: the derivative of q R by unknown u.
        std::vector<std::vector<double>> design(
            kMaxUnknowns, std::vector<double>(static_cast<size_t>(width), 0.0));
        std::vector<double> y(static_cast<size_t>(width), 0.0);
        for (int c = 0; c < width; ++c) {
          for (int i = 0; i <= c; ++i) {
            const double r = problem.triangle.r(i, c);
            y[static_cast<size_t>(c)] += problem.w.at(i, lane) * r;
            if (!problem.kept(i, lane)) continue;  // no unknown of the levels
            const int u = problem.set[static_cast<size_t>(i)] * kMaxLevels +
                          static_cast<int>(coded.cls.at(i, lane));
            design[static_cast<size_t>(u)][static_cast<size_t>(c)] += coded.sign.at(i, lane) * r;
            if (with_offset) design[kMaxUnknowns - 1][static_cast<size_t>(c)] += r;
          }
        }
        const auto exists = [&](int u) {
          return u == kMaxUnknowns - 1 ? with_offset
                                       : u % kMaxLevels < problem.levels.classes[u / kMaxLevels];
        };
        for (int u = 0; u < kMaxUnknowns; ++u) {
          if (!exists(u)) continue;
          for (int v = u; v < kMaxUnknowns; ++v) {
            if (!exists(v)) continue;
            double sum = 0;
            for (size_t c = 0; c < y.size(); ++c) sum += design[u][c] * design[v][c];
            actual.push_back(equations.gram[(u * kMaxUnknowns + v) * kTileRows + lane]);
            expected.push_back(static_cast<float>(sum));
          }
          double sum = 0;
          for (size_t c = 0; c < y.size(); ++c) sum += design[u][c] * y[c];
          actual.push_back(equations.right[u * kTileRows + lane]);
          expected.push_back(static_cast<float>(sum));
        }
      }
      EXPECT_TRUE(close(actual, expected, {.absolute = 1e-5 * width, .relative = 1e-4}));
    });
  }
}

// One after the other, all kernels on one problem; the bits of every result.
std::vector<float> all_results(const Problem& problem) {
  std::vector<float> results;
  const auto take = [&](const Tile& tile) {
    results.insert(results.end(), tile.span().begin(), tile.span().end());
  };
  const auto take_coded = [&](const Coded& coded) {
    for (const Tile* tile : {&coded.q, &coded.sign, &coded.cls, &coded.delta, &coded.loss}) {
      take(*tile);
    }
  };
  const GroupFactor factor = problem.triangle.factor();
  const int64_t size = Coded::size(problem);
  Coded coded(problem);
  code_nearest(factor, problem.levels, problem.w.get(), coded.codes, coded.delta.get(),
               coded.loss.get());
  take_coded(coded);
  code_with_feedback(factor, problem.levels, problem.w.get(), coded.codes, coded.delta.get(),
                     coded.loss.get());
  take_coded(coded);
  Tile residual(size), out(size), solved(size);
  multiply_factor(factor, coded.delta.get(), residual.get());
  take(residual);
  descend_codes(factor, problem.levels, coded.codes, coded.delta.get(), residual.get(),
                coded.loss.get());
  take_coded(coded);
  take(residual);
  for (const bool with_offset : {false, true}) {
    const Equations equations(problem, with_offset, coded);
    take(equations.gram);
    take(equations.right);
  }
  requantize(factor, moved(problem.levels), problem.w.get(), coded.codes, coded.delta.get());
  take_coded(coded);
  accumulate_feedback(coded.delta.get(), factor.width, factor.rows, factor.width, factor.width,
                      out.get());
  take(out);
  solve_factor(factor, out.get(), solved.get());
  take(solved);
  return results;
}

TEST(RowTiles, SameBitsOnEveryTarget) {
  ASSERT_NE(supported_targets(), 0);
  for_problems([](const Problem& problem) {
    const std::vector<float> best = all_results(problem);
    for_every_target([&](int64_t target) {
      const std::vector<float> results = all_results(problem);
      ASSERT_EQ(results.size(), best.size());
      ASSERT_EQ(0, std::memcmp(results.data(), best.data(), best.size() * sizeof(float)))
          << "target " << target;
    });
  });
}

}  // namespace
}  // namespace billm::kernels
