// The gains that count, and which targets are in reach.
#include "src/pipeline/target_bits.h"

#include <gtest/gtest.h>

#include "billm/base/error.h"
#include "billm/model/model.h"
#include "billm/quantize/settings.h"
#include "support/environment.h"
#include "support/tiny_checkpoint.h"

namespace billm {
namespace {

class TargetBits : public testing::Test {
 protected:
  void SetUp() override {
    test::TinyLlama options;
    options.blocks = 12;
    test::write_tiny_llama(directory_.path(), options);
    model_.emplace(directory_.path(), 1);
  }
  const ModelSpec& spec() const { return model_->spec(); }

  test::TemporaryDirectory directory_;
  std::optional<Model> model_;
};

TEST_F(TargetBits, GainsAreMeansOfTheirKindNearby) {
  const LinearSpec& up = spec().linear(LinearRole::kUp);
  const LinearSpec& down = spec().linear(LinearRole::kDown);
  std::map<std::string, double> gains;
  for (int64_t b = 0; b < 12; ++b) {
    gains[spec().module(b, up)] = static_cast<double>(b * b);
    if (b != 5) gains[spec().module(b, down)] = 7;
  }
  const auto smoothed = smoothed_gains(spec(), gains);
  EXPECT_EQ(smoothed.size(), gains.size());
  const auto of = [&](int64_t b) { return smoothed.at(spec().module(b, up)); };
  EXPECT_EQ(of(0), 0);
  EXPECT_EQ(of(11), 121);
  EXPECT_EQ(of(1), (1 + 4 + 9 + 16 + 25) / 5.0);  // not block 0
  EXPECT_EQ(of(6), (4 + 9 + 16 + 25 + 36 + 49 + 64 + 81 + 100) / 9.0);
  EXPECT_EQ(of(10), (36 + 49 + 64 + 81 + 100) / 5.0);  // not block 11
  for (int64_t b = 0; b < 12; ++b) {
    if (b == 5) continue;
    EXPECT_EQ(smoothed.at(spec().module(b, down)), 7) << b;
  }
}

TEST_F(TargetBits, InReach) {
  const MethodConfig run = configure("gptq", {{"bits", 2}});
  const ReachableBits all = check_target_bits(spec(), run, {}, 2.5);
  EXPECT_GT(all.least, 2);  // steps and zeros
  EXPECT_LT(all.least, 2.5);
  EXPECT_NEAR(all.most - all.least, 1, 0.05);
  EXPECT_THROW(check_target_bits(spec(), run, {}, all.least - 1e-6), Error);
  EXPECT_THROW(check_target_bits(spec(), run, {}, all.most + 1e-6), Error);
  LayerPlan plan;
  for (const std::string& module : spec().modules()) plan[module] = {{"bits", 16}};
  EXPECT_THROW(check_target_bits(spec(), run, plan, 2.5), Error);
  plan.erase(spec().modules().front());
  EXPECT_THROW(check_target_bits(spec(), run, plan, 2.5), Error);
  // What billm takes is not known before, so that nothing is refused for being too much.
  for (auto& [module, own] : plan) own = {{"method", "billm"}};
  check_target_bits(spec(), run, plan, 2.5);
}

}  // namespace
}  // namespace billm
