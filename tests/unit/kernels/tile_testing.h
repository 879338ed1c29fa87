// Helpers of the kernel tests: aligned buffers, a random tile, and every Highway target in turn.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "kernels/cpu/row_tiles.h"
#include "support/random_layer.h"

namespace billm::kernels {

// Floats aligned as the kernels load them, zero or as given.
class Tile {
 public:
  explicit Tile(int64_t count) : count_(static_cast<size_t>(count)), data_(allocate(count)) {
    std::fill_n(data_.get(), count_, 0.0f);
  }
  explicit Tile(const std::vector<float>& values) : Tile(static_cast<int64_t>(values.size())) {
    std::copy(values.begin(), values.end(), data_.get());
  }
  Tile(const Tile& other) : Tile(std::vector<float>(other.get(), other.get() + other.count_)) {}
  float* get() { return data_.get(); }
  const float* get() const { return data_.get(); }
  float& operator[](int64_t i) { return data_[static_cast<size_t>(i)]; }
  float operator[](int64_t i) const { return data_[static_cast<size_t>(i)]; }
  // Element (column c, lane) of a [columns][64] tile.
  float at(int64_t c, int lane) const { return (*this)[c * kTileRows + lane]; }
  std::span<const float> span() const { return {data_.get(), count_}; }
  bool same_bits(const Tile& other) const {
    return count_ == other.count_ &&
           std::memcmp(data_.get(), other.data_.get(), count_ * sizeof(float)) == 0;
  }

 private:
  static float* allocate(int64_t count) {
    const size_t bytes = (static_cast<size_t>(count) * sizeof(float) + 63) / 64 * 64;
    return static_cast<float*>(std::aligned_alloc(64, std::max<size_t>(bytes, 64)));
  }
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  size_t count_;
  std::unique_ptr<float[], Free> data_;
};

// An upper triangle with a dominant diagonal, as GroupFactor wants it.
struct Triangle {
  Triangle(int width, uint32_t seed) : width(width), rows(width * width), columns(width * width) {
    test::Random random(seed);
    norm.resize(static_cast<size_t>(width));
    for (int i = 0; i < width; ++i) {
      for (int j = i; j < width; ++j) {
        const float r = i == j ? 0.5f + random.uniform() : 0.2f * random.normal();
        rows[static_cast<size_t>(i * width + j)] = r;
        columns[static_cast<size_t>(j * width + i)] = r;
        norm[static_cast<size_t>(i)] += r * r;
      }
    }
  }
  double r(int i, int j) const { return rows[static_cast<size_t>(i * width + j)]; }
  GroupFactor factor() const { return {width, rows.data(), columns.data(), norm.data()}; }

  int width;
  std::vector<float> rows, columns, norm;
};

// A grid of `bits` bits whose step and zero differ from lane to lane; one lane's step is 0.
inline IntegerGrid random_grid(int bits, uint32_t seed) {
  test::Random random(seed);
  IntegerGrid grid;
  grid.last = static_cast<float>((1 << bits) - 1);
  for (int lane = 0; lane < kTileRows; ++lane) {
    grid.step[lane] = lane == 5 ? 0.0f : (0.5f + random.uniform()) * 4 / grid.last;
    grid.inverse[lane] = lane == 5 ? 0.0f : 1.0f / grid.step[lane];
    grid.zero[lane] = static_cast<float>(random.below(static_cast<uint32_t>(1 << bits)));
  }
  return grid;
}

// Distance of t from the nearest value of the grid.
inline double grid_distance(const IntegerGrid& grid, int lane, double t) {
  double best = INFINITY;
  for (int code = 0; code <= static_cast<int>(grid.last); ++code) {
    best = std::min(best, std::fabs(t - (code - double{grid.zero[lane]}) * grid.step[lane]));
  }
  return best;
}

// A tile's group to code: weights, levels, column sets, and optionally a mask.
struct Problem {
  Problem(int width, int classes, int salient_classes, bool masked, bool offsets, uint32_t seed)
      : triangle(width, seed),
        w(test::random_normal(int64_t{width} * kTileRows, seed + 1)),
        keep(int64_t{width} * kTileRows),
        masked(masked) {
    test::Random random(seed + 2);
    levels.classes[0] = classes;
    levels.classes[1] = salient_classes;
    for (int lane = 0; lane < kTileRows; ++lane) {
      for (int s = 0; s < kColumnSets; ++s) {
        float level = 0;
        for (int k = 0; k < levels.classes[s]; ++k) {
          levels.level[s][k][lane] = level += 0.1f + random.uniform();
        }
      }
      levels.offset[lane] = offsets ? 0.3f * random.normal() : 0.0f;
    }
    for (int c = 0; c < width; ++c) {
      set.push_back(salient_classes > 0 && random.below(4) == 0);
      for (int lane = 0; lane < kTileRows; ++lane) {
        keep[c * kTileRows + lane] = random.below(3) != 0 ? 1.0f : 0.0f;
      }
    }
  }
  bool kept(int c, int lane) const { return !masked || keep.at(c, lane) != 0; }
  // What is not kept is an integer.
  void mix(int bits) {
    mixed = masked = true;
    grid = random_grid(bits, 77);
  }

  Triangle triangle;
  Levels levels;
  Tile w, keep;
  bool masked;
  bool mixed = false;
  IntegerGrid grid;
  std::vector<uint8_t> set;
};

// What the coding kernels write.
struct Coded {
  explicit Coded(const Problem& problem)
      : q(size(problem)), sign(size(problem)), cls(size(problem)), delta(size(problem)), loss(64) {
    codes.set = problem.set.data();
    codes.keep = problem.masked ? problem.keep.get() : nullptr;
    codes.integers = problem.mixed ? &problem.grid : nullptr;
    codes.q = q.get();
    codes.sign = sign.get();
    codes.cls = cls.get();
  }
  Coded(const Coded&) = delete;
  static int64_t size(const Problem& problem) {
    return int64_t{problem.triangle.width} * kTileRows;
  }
  bool same_bits(const Coded& other) const {
    return q.same_bits(other.q) && sign.same_bits(other.sign) && cls.same_bits(other.cls) &&
           delta.same_bits(other.delta) && loss.same_bits(other.loss);
  }

  Tile q, sign, cls, delta, loss;
  GroupCodes codes;
};

// Calls body(target) with each target that this machine runs forced, and goes back to the best.
template <typename Body>
void for_every_target(Body&& body) {
  const int64_t targets = supported_targets();
  for (int bit = 0; bit < 63; ++bit) {
    const int64_t target = int64_t{1} << bit;
    if ((targets & target) == 0) continue;
    force_target(target);
    body(target);
  }
  force_target(0);
}

}  // namespace billm::kernels
