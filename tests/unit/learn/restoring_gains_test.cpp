// Gains against differences of the divergence itself, of models whose weights are moved towards the
// original's.
#include "billm/learn/restoring_gains.h"

#include <gtest/gtest.h>

#include <random>

#include "billm/base/half.h"
#include "billm/model/runtime.h"
#include "support/environment.h"
#include "support/tiny_checkpoint.h"

namespace billm {
namespace {

const c10::Device kCpu(c10::kCPU);

// `moved` of the linear with this suffix stands at `share` of the way from its noisy weight to the
// original's; all other linears are noisy.
void write_noisy(const std::filesystem::path& directory, const std::string& moved, float share) {
  test::TinyLlama options;
  options.change = [&, random = std::mt19937(3)](const std::string& name, std::vector<int64_t>&,
                                                 std::vector<uint16_t>& halves) mutable {
    if (name.find("_proj") == std::string::npos) return true;
    std::normal_distribution<float> normal;
    const float way = name.find(moved) == std::string::npos ? 0 : share;
    for (uint16_t& half : halves) {
      const float weight = half_to_float(half);
      half = float_to_half(weight + (1 - way) * 0.3f * std::fabs(weight) * normal(random));
    }
    return true;
  };
  test::write_tiny_llama(directory, options);
}

TEST(RestoringGains, AreDifferencesOfTheDivergence) {
  init_torch();
  TokenMatrix tokens;
  tokens.rows = 5;
  tokens.cols = 24;
  for (int64_t i = 0; i < tokens.rows * tokens.cols; ++i) {
    tokens.values.push_back(static_cast<int32_t>((i * i * 7 + i * 13) % 79));
  }
  const test::TemporaryDirectory directory;
  test::write_tiny_llama(directory.path() / "original");
  const Model original(directory.path() / "original", 1);
  const auto measure = [&](const std::string& moved, float share, int threads) {
    const std::filesystem::path path = directory.path() / "noisy";
    std::filesystem::remove_all(path);
    write_noisy(path, moved, share);
    return restoring_gains(original, Model(path, 1), tokens, 4, kCpu, threads, true);
  };
  const RestoringGains here = measure("none", 0, 1);
  EXPECT_GT(here.loss, 0.01);
  EXPECT_EQ(here.gain.size(), original.spec().modules().size());
  double largest = 0;
  for (const auto& [module, gain] : here.gain) largest = std::max(largest, std::fabs(gain));
  for (const std::string& module : original.spec().modules()) {
    SCOPED_TRACE(module);
    constexpr float kWay = 0.05f;
    const double difference =
        (measure(module + ".", -kWay, 1).loss - measure(module + ".", kWay, 1).loss) / (2 * kWay);
    // Weights are stored in fp16.
    EXPECT_NEAR(here.gain.at(module), difference, 0.03 * largest);
  }
  const RestoringGains again = measure("none", 0, 3);
  EXPECT_EQ(again.loss, here.loss);
  EXPECT_EQ(again.gain, here.gain);
}

TEST(RestoringGains, NoneWithoutError) {
  init_torch();
  TokenMatrix tokens{.rows = 2, .cols = 9, .values = std::vector<int32_t>(18, 5)};
  const test::TemporaryDirectory directory;
  test::write_tiny_llama(directory.path());
  const Model original(directory.path(), 1);
  const RestoringGains none = restoring_gains(original, original, tokens, 8, kCpu, 2, true);
  EXPECT_NEAR(none.loss, 0, 1e-6);
  for (const auto& [module, gain] : none.gain) EXPECT_EQ(gain, 0) << module;
}

}  // namespace
}  // namespace billm
