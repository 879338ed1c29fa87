// Tokens with massive activations: found by their norms, compared, and their report's JSON.
#include "src/pipeline/sinks.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "billm/model/runtime.h"
#include "support/environment.h"
#include "support/tiny_checkpoint.h"

namespace billm {
namespace {

const c10::Device kCpu(c10::kCPU);

TEST(SinkPositions, AreFarAboveTheMedian) {
  const at::NoGradGuard no_grad;
  at::Tensor state = at::ones({9, 16}, at::kFloat);
  EXPECT_TRUE(sink_positions(state).empty());
  state.select(0, 0).fill_(25);
  state.select(0, 3).fill_(19);
  state.select(0, 7).fill_(-20);
  EXPECT_EQ(sink_positions(state), (std::vector<int64_t>{0, 7}));
  EXPECT_TRUE(sink_positions(at::zeros({4, 16}, at::kFloat)).empty());
}

TEST(CompareSinks, AddsUpAndKnowsWhatIsLost) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> originals, present;
  for (int i = 0; i < 3; ++i) {
    originals.push_back(at::ones({9, 4}, at::kFloat));
    if (i < 2) originals.back().select(0, 0).fill_(50);  // norm 100
    present.push_back(originals.back().clone());
  }
  const auto compare = [&] {
    SinkReport sum;
    for (const SinkReport& part :
         compare_sinks(TensorSequences(originals), TensorSequences(present), 2)) {
      sum.add(part);
    }
    return sum;
  };
  SinkReport report = compare();
  EXPECT_EQ(report.tokens, 2);
  EXPECT_DOUBLE_EQ(report.original_norm, 200);
  EXPECT_DOUBLE_EQ(report.norm, 200);
  EXPECT_EQ(report.error, 0);
  EXPECT_FALSE(report.lost());
  present[0].select(0, 0).fill_(10);
  present[1].select(0, 0).fill_(25);
  report = compare();
  EXPECT_DOUBLE_EQ(report.norm, 70);
  EXPECT_DOUBLE_EQ(report.error, 0.64 + 0.25);
  EXPECT_TRUE(report.lost());

  const nlohmann::ordered_json json = report;
  EXPECT_EQ(json.at("original_norm"), 100);
  EXPECT_EQ(json.at("norm"), 35);
  EXPECT_EQ(nlohmann::ordered_json(json.get<SinkReport>()), json);
  const nlohmann::ordered_json none = SinkReport();
  EXPECT_TRUE(none.at("norm").is_null());
  EXPECT_EQ(nlohmann::ordered_json(none.get<SinkReport>()), none);
  EXPECT_FALSE(SinkReport().lost());
}

// A model whose token 3 has a huge embedding.
TEST(FindSinks, OfTheOriginalBehindAnyBlock) {
  init_torch();
  const at::NoGradGuard no_grad;
  const test::TemporaryDirectory directory;
  test::write_tiny_llama(directory.path());
  const Model model(directory.path(), 1);
  const Rope rope = make_rope(model.spec(), 8, kCpu);
  for (const HiddenPlace place : {HiddenPlace::kMemory, HiddenPlace::kDisk}) {
    const test::TemporaryDirectory files;
    const HiddenShape shape = {{4, 9}, 8, model.spec().config.hidden_size};
    HiddenStates hidden(files.path(), shape, place, kCpu);
    hidden.replace(
        "start",
        [&](int64_t first, int64_t count, const auto& take) {
          for (int64_t i = first; i < first + count; ++i) {
            at::Tensor state = at::full({8, shape.width}, 0.01f, at::kFloat);
            if (i == 1) state.select(0, 5).fill_(1e4f);
            take(i, state);
          }
        },
        1);
    const auto found = find_sinks({model, rope, files.path(), kCpu, 2, true}, &hidden);
    ASSERT_EQ(found.size(), 2u);
    EXPECT_TRUE(found[0].empty());
    EXPECT_EQ(found[1], std::vector<int64_t>{5});
    EXPECT_TRUE(std::filesystem::is_empty(files.path()));
  }
}

}  // namespace
}  // namespace billm
