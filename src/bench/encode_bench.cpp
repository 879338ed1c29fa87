// See include/billm/bench/encode.h.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>

#include "billm/base/stopwatch.h"
#include "billm/bench/bench.h"
#include "billm/bench/encode.h"
#include "kernels/cpu/trellis_viterbi.h"

namespace billm {
namespace {

using kernels::kTrellisColumns;
using kernels::kTrellisStates;

constexpr int64_t kRows = 512;
constexpr int kSegments = 64;  // of a repetition: some milliseconds

}  // namespace

std::vector<EncodeBench> bench_encode(int repetitions) {
  constexpr float kUnit = 1.0f / 40;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  int8_t table[kTrellisStates][kTrellisColumns];
  for (auto& entries : table) {
    for (int8_t& entry : entries) {
      entry = static_cast<int8_t>(std::lrint(std::clamp(normal(random) / kUnit, -127.0f, 127.0f)));
    }
  }
  const float factor[kTrellisColumns][kTrellisColumns] = {
      {1, 0.1f, 0.2f, 0}, {0, 1, 0.1f, 0.1f}, {0, 0, 1, 0.3f}, {0, 0, 0, 1}};
  std::vector<float> x(static_cast<size_t>(kRows * kTrellisColumns));
  for (float& value : x) value = normal(random);
  std::vector<uint8_t> states(static_cast<size_t>(kRows));
  kernels::TrellisScratch scratch;
  std::vector<EncodeBench> result;
  for (int rate = 1; rate <= kernels::kMaxTrellisRate; ++rate) {
    std::vector<double> seconds;
    for (int repetition = -1; repetition < repetitions; ++repetition) {  // -1 warms up
      const Stopwatch watch;
      for (int i = 0; i < kSegments; ++i) {
        const auto metric = kernels::make_trellis_metric(table, kUnit, factor);
        kernels::trellis_viterbi(metric, rate, x.data(), nullptr, kRows, states.data(), &scratch);
      }
      if (repetition < 0) continue;
      seconds.push_back(watch.seconds() / (kSegments * static_cast<double>(x.size())));
    }
    result.push_back({rate, median(seconds), *std::min_element(seconds.begin(), seconds.end())});
  }
  return result;
}

}  // namespace billm
