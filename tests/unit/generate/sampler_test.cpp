// The kept tokens and their probabilities against transformers' processors; the draw itself.
#include "billm/generate/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/base/json_text.h"
#include "support/compare.h"
#include "support/environment.h"

namespace billm {
namespace {

SamplerSettings settings_of(const nlohmann::json& raw) {
  SamplerSettings settings;
  settings.repetition_penalty = raw.value("repetition_penalty", 1.0);
  settings.temperature = raw.value("do_sample", true) ? raw.value("temperature", 1.0) : 0.0;
  settings.top_k = raw.value("top_k", 50);
  settings.top_p = raw.value("top_p", 1.0);
  settings.min_p = raw.value("min_p", 0.0);
  return settings;
}

TEST(Sampler, AgreesWithTransformers) {
  BILLM_NEED(python, "BILLM_PYTHON");
  const test::TemporaryDirectory directory;
  test::run_python(python, "sampler_reference.py", {directory.path()});
  const nlohmann::json cases = parse_json(read_text_file(directory.path() / "cases.json"));
  const std::vector<float> all = test::read_floats(directory.path() / "logits.f32");
  ASSERT_GT(cases.size(), 200u);
  const size_t vocab = all.size() / cases.size();
  int kept = 0;
  for (size_t i = 0; i < cases.size(); ++i) {
    const nlohmann::json& one = cases[i];
    SCOPED_TRACE(std::to_string(i) + " " + dump_json(one["settings"]));
    Sampler sampler(settings_of(one["settings"]), static_cast<int64_t>(vocab));
    sampler.start(one["seen"].get<std::vector<int32_t>>());
    std::vector<Sampler::Candidate> found =
        sampler.candidates(std::span(all).subspan(i * vocab, vocab));
    EXPECT_TRUE(std::is_sorted(found.begin(), found.end(),
                               [](const auto& a, const auto& b) { return a.logit > b.logit; }));
    std::sort(found.begin(), found.end(),
              [](const auto& a, const auto& b) { return a.token < b.token; });
    std::vector<int32_t> tokens;
    std::vector<float> probabilities;
    for (const Sampler::Candidate& candidate : found) {
      tokens.push_back(candidate.token);
      probabilities.push_back(static_cast<float>(candidate.probability));
    }
    EXPECT_EQ(tokens, one["tokens"].get<std::vector<int32_t>>());
    EXPECT_TRUE(test::close(probabilities, one["probabilities"].get<std::vector<float>>(),
                            {.absolute = 1e-7, .relative = 1e-5}));
    kept += static_cast<int>(tokens.size());
  }
  EXPECT_GT(kept, 5000);
}

TEST(Sampler, DrawsByProbabilityAndBySeed) {
  SamplerSettings settings;
  settings.temperature = 1;
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  const auto draw = [&](uint64_t seed, int count) {
    settings.seed = seed;
    Sampler sampler(settings, 3);
    std::vector<int32_t> tokens;
    for (int i = 0; i < count; ++i) tokens.push_back(sampler.sample(logits));
    return tokens;
  };
  constexpr int kDraws = 20000;
  const std::vector<int32_t> tokens = draw(5, kDraws);
  const double expected[] = {0.5, 0.3, 0.2};
  for (int32_t token = 0; token < 3; ++token) {
    const auto count = std::count(tokens.begin(), tokens.end(), token);
    const double share = static_cast<double>(count) / kDraws;
    EXPECT_NEAR(share, expected[token], 0.018);  // five standard deviations
  }
  EXPECT_EQ(draw(5, 100), draw(5, 100));
  EXPECT_NE(draw(5, 100), draw(6, 100));
  // As the first version drew them: a seed keeps its meaning.
  EXPECT_EQ(draw(0, 12), (std::vector<int32_t>{0, 2, 0, 1, 1, 0, 1, 0, 2, 2, 0, 1}));
}

TEST(Sampler, GreedyTakesTheFirstOfEqualOnesAndPenalizesWhatItChose) {
  Sampler greedy({}, 4);
  EXPECT_EQ(greedy.sample(std::vector<float>{1, 3, 3, 2}), 1);
  SamplerSettings settings;
  settings.repetition_penalty = 2;
  Sampler sampler(settings, 4);
  const std::vector<float> logits = {1, 3, 2, -1};
  EXPECT_EQ(sampler.sample(logits), 1);
  EXPECT_EQ(sampler.sample(logits), 2);  // 1.5 is left of the 3
  EXPECT_EQ(sampler.sample(logits), 1);
  sampler.start(std::vector<int32_t>{3});
  EXPECT_EQ(sampler.sample(logits), 1);
}

TEST(Sampler, Refuses) {
  const auto code = [](const SamplerSettings& settings) {
    try {
      Sampler sampler(settings, 4);
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode{};
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(code({}), ErrorCode{});
  for (const double bad : {0.0, -1.0, nan, infinity}) {
    EXPECT_EQ(code({.repetition_penalty = bad}), ErrorCode::kUsage);
  }
  for (const double bad : {-1.0, nan, infinity}) {
    EXPECT_EQ(code({.temperature = bad}), ErrorCode::kUsage);
  }
  for (const double bad : {-0.1, 1.1, nan}) {
    EXPECT_EQ(code({.top_p = bad}), ErrorCode::kUsage);
    EXPECT_EQ(code({.min_p = bad}), ErrorCode::kUsage);
  }
  EXPECT_EQ(code({.top_k = -1}), ErrorCode::kUsage);
  Sampler sampler({}, 4);
  EXPECT_THROW(sampler.start(std::vector<int32_t>{4}), Error);
  EXPECT_THROW(sampler.start(std::vector<int32_t>{-1}), Error);
  EXPECT_THROW(sampler.sample(std::vector<float>{1, std::nanf(""), 2, 3}), Error);
  EXPECT_THROW(Sampler({.temperature = 1e-40}, 2).sample(std::vector<float>{1, 2}), Error);
}

}  // namespace
}  // namespace billm
