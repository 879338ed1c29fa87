// What the tests of the trellis kernels share: a table and a search in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/cpu/trellis_viterbi.h"
#include "support/random_layer.h"

namespace billm::kernels {

inline constexpr float kTestUnit = 1.0f / 40;

// A Gaussian table whose standard deviation is that of `unit` steps.
struct TestTable {
  explicit TestTable(uint32_t seed) {
    test::Random random(seed);
    for (auto& row : entry) {
      for (int8_t& value : row) {
        value = static_cast<int8_t>(std::clamp(std::lrint(40 * random.normal()), -127L, 127L));
      }
    }
  }
  int8_t entry[kTrellisStates][kTrellisColumns];
};

struct TestFactor {
  float entry[kTrellisColumns][kTrellisColumns] = {};
  static TestFactor identity() {
    TestFactor factor;
    for (int i = 0; i < kTrellisColumns; ++i) factor.entry[i][i] = 1;
    return factor;
  }
  // As a Cholesky factor: upper triangular, the rows of different size.
  static TestFactor random(uint32_t seed) {
    test::Random random(seed);
    TestFactor factor;
    for (int i = 0; i < kTrellisColumns; ++i) {
      for (int j = i; j < kTrellisColumns; ++j) {
        factor.entry[i][j] = i == j ? 0.5f + 2 * random.uniform() : 0.7f * random.normal();
      }
    }
    return factor;
  }
};

// |(x - T[s] unit) F|^2.
inline double trellis_distance(const TestTable& table, const TestFactor& factor, const float* x,
                               int s) {
  double result = 0;
  for (int j = 0; j < kTrellisColumns; ++j) {
    double sum = 0;
    for (int i = 0; i < kTrellisColumns; ++i) {
      sum += (x[i] - double{kTestUnit} * table.entry[s][i]) * factor.entry[i][j];
    }
    result += sum * sum;
  }
  return result;
}

// Sum of weighted distances along a path.
inline double trellis_cost(const TestTable& table, const TestFactor& factor,
                           const std::vector<float>& x, const std::vector<float>& weight,
                           const std::vector<uint8_t>& states) {
  double sum = 0;
  for (size_t i = 0; i < states.size(); ++i) {
    const double distance = trellis_distance(table, factor, x.data() + 4 * i, states[i]);
    sum += (weight.empty() ? 1.0 : weight[i]) * distance;
  }
  return sum;
}

// The least sum that a path has.
inline double least_trellis_cost(const TestTable& table, const TestFactor& factor, int k,
                                 const std::vector<float>& x, const std::vector<float>& weight) {
  std::vector<double> before(kTrellisStates), now(kTrellisStates);
  for (size_t i = 0; i < x.size() / 4; ++i) {
    for (int s = 0; s < kTrellisStates; ++s) {
      double best = i == 0 ? 0 : INFINITY;
      for (int h = 0; i > 0 && h < 1 << k; ++h) {
        best = std::min(best, before[static_cast<size_t>((s >> k) + h * (kTrellisStates >> k))]);
      }
      const double distance = trellis_distance(table, factor, x.data() + 4 * i, s);
      now[static_cast<size_t>(s)] = best + (weight.empty() ? 1.0 : weight[i]) * distance;
    }
    std::swap(before, now);
  }
  return *std::min_element(before.begin(), before.end());
}

// A row's state is made of the last bits of the row's above and k new ones.
inline bool is_trellis_path(const std::vector<uint8_t>& states, int k) {
  for (size_t i = 1; i < states.size(); ++i) {
    if (states[i] >> k != (states[i - 1] & ((kTrellisStates >> k) - 1))) return false;
  }
  return true;
}

}  // namespace billm::kernels
