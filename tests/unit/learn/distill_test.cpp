// Distillation of a whole random model: KL falls on text that was held out, every kind of parameter
// lowers the training loss, and what is stored has the loss that was reported. Gradients:
// families_test.cpp.
#include "billm/learn/distill.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <optional>

#include "billm/base/error.h"
#include "billm/calibrate/collect.h"
#include "billm/model/model.h"
#include "billm/model/runtime.h"
#include "billm/quantize/methods.h"
#include "support/environment.h"
#include "support/tiny_checkpoint.h"

namespace billm {
namespace {

const c10::Device kCpu(c10::kCPU);

class Distill : public testing::Test {
 protected:
  void SetUp() override {
    init_torch();
    const at::NoGradGuard no_grad;
    test::write_tiny_llama(directory_.path());
    model_.emplace(directory_.path(), 1);
    tokens_.rows = 40;
    tokens_.cols = 24;
    for (int64_t i = 0; i < tokens_.rows * tokens_.cols; ++i) {
      tokens_.values.push_back(static_cast<int32_t>((i * i * 7 + i * 13) % 79));
    }
    std::vector<at::Tensor> hidden;
    for (int64_t row = 0; row < tokens_.rows; ++row) {
      hidden.push_back(Embedding(model_->weights(), spec())(tokens_.row(row)));
    }
    rope_ = make_rope(spec(), tokens_.cols, kCpu);
    MethodConfig method;
    method.block_size = 32;
    for (int64_t b = 0; b < spec().blocks(); ++b) {
      DistilledBlock quantized;
      quantized.block = load_block(model_->weights(), spec(), b, 1, kCpu);
      const TensorSequences sequences(hidden);
      BlockWalk walk(spec(), sequences, false);
      const auto stats = collect_stats(spec(), quantized.block, rope_, walk, {});
      for (const LinearSpec& linear : spec().family->linears) {
        const at::Tensor weight = quantized.block.weight(linear.suffix).contiguous();
        const Hessian hessian = make_hessian(stats.at(linear.group), true, 0.01, 1);
        quantized.linears[linear.suffix] = {
            weight, find_method("billm").quantize(
                        {weight.const_data_ptr<float>(), weight.size(0), weight.size(1)}, hessian,
                        method, {})};
      }
      quantized.types = types_of(at::kHalf);
      blocks_.push_back(quantized);
      advance(spec(), quantized.block, rope_, hidden, 1);
    }
    last_ = load_final_layers(model_->weights(), spec(), kCpu);
  }

  const ModelSpec& spec() const { return model_->spec(); }
  NormTypes types_of(at::ScalarType type) const {
    NormTypes types;
    for (const NormSpec& norm : spec().family->norms) types[norm.suffix] = type;
    return types;
  }

  struct Result {
    TuneReport report;
    std::vector<double> losses;
    std::vector<DistilledBlock> blocks;
    FinalLayers last;
  };
  Result distilled(const DistillConfig& config, int threads, const DistillStep& after = {},
                   const TrainingState* resumed = nullptr) const {
    const at::NoGradGuard no_grad;
    Result result{{}, {}, blocks_, last_};
    DistillResult found = distill(model_->weights(), spec(), tokens_, config, at::kHalf, threads,
                                  kCpu, after, resumed, "the state", &result.blocks, &result.last);
    result.report = found.tune;
    result.losses = std::move(found.losses);
    return result;
  }

  test::TemporaryDirectory directory_;
  std::optional<Model> model_;
  TokenMatrix tokens_;
  Rope rope_;
  std::vector<DistilledBlock> blocks_;
  FinalLayers last_;
};

DistillConfig config() {
  DistillConfig config;
  config.steps = 60;
  config.window = 12;
  config.batch = 8;
  return config;
}

TEST_F(Distill, LowersTheHeldOutDivergence) {
  const Result result = distilled(config(), 2);
  EXPECT_EQ(result.losses.size(), 60u);
  EXPECT_GT(result.report.best_step, 0);
  EXPECT_LT(result.report.loss_after, 0.95 * result.report.loss_before);
  EXPECT_FALSE(result.last.norm.equal(last_.norm));
  for (const DistilledBlock& block : result.blocks) {
    for (const auto& [suffix, linear] : block.linears) check_codes(linear.codes);
  }
  // The stored state has the stored loss.
  DistillConfig still = config();
  still.steps = 1;
  still.code_rate = still.scale_rate = still.norm_rate = 0;
  const at::NoGradGuard no_grad;
  std::vector<DistilledBlock> blocks = result.blocks;
  FinalLayers last = result.last;
  const TuneReport again = distill(model_->weights(), spec(), tokens_, still, at::kHalf, 1, kCpu,
                                   {}, nullptr, "", &blocks, &last)
                               .tune;
  EXPECT_NEAR(again.loss_before, result.report.loss_after, 1e-6);
}

// With norms in fp32 (nothing is rounded on the way out) and a rate at which later steps spoil what
// earlier ones gained: what comes back is the best state, not the last.
TEST_F(Distill, KeepsTheBestStateInFullPrecision) {
  for (DistilledBlock& block : blocks_) block.types = types_of(at::kFloat);
  DistillConfig wild = config();
  wild.steps = 16;
  wild.batch = 2;
  wild.code_rate = wild.scale_rate = 0;
  bool spoiled = false;
  for (const double rate : {0.05, 0.1, 0.2, 0.4}) {
    wild.norm_rate = rate;
    const at::NoGradGuard no_grad;
    std::vector<DistilledBlock> blocks = blocks_;
    FinalLayers last = last_;
    const TuneReport report = distill(model_->weights(), spec(), tokens_, wild, at::kFloat, 2, kCpu,
                                      {}, nullptr, "", &blocks, &last)
                                  .tune;
    spoiled |= report.best_step < wild.steps;
    DistillConfig still = wild;
    still.steps = 1;
    still.norm_rate = 0;
    const TuneReport again = distill(model_->weights(), spec(), tokens_, still, at::kFloat, 1, kCpu,
                                     {}, nullptr, "", &blocks, &last)
                                 .tune;
    EXPECT_NEAR(again.loss_before, report.loss_after, 1e-6) << "rate " << rate;
  }
  EXPECT_TRUE(spoiled) << "no rate was high enough for this test to mean something";
}

TEST_F(Distill, ThreadsDoNotMatter) {
  DistillConfig short_config = config();
  short_config.steps = 5;
  const Result one = distilled(short_config, 1), three = distilled(short_config, 3);
  EXPECT_EQ(one.losses, three.losses);
  EXPECT_EQ(one.report.loss_after, three.report.loss_after);
}

// With codes that learn and with codes that stay.
TEST_F(Distill, GoesOnFromAStoredStepToTheSameCodes) {
  for (const double code_rate : {0.0, 0.02}) {
    DistillConfig part = config();
    part.steps = 6;
    part.code_rate = code_rate;
    part.scale_rate = part.norm_rate = 0.01;
    struct Stop {};
    TrainingState stored;
    const auto stop = [&](int step, double, const std::function<TrainingState()>& state) {
      if (step < 4) return;
      stored = state();
      throw Stop();
    };
    const Result whole = distilled(part, 2);
    EXPECT_THROW(distilled(part, 2, stop), Stop);
    const Result resumed = distilled(part, 1, {}, &stored);
    EXPECT_EQ(resumed.losses, whole.losses);
    EXPECT_EQ(resumed.report.best_step, whole.report.best_step);
    EXPECT_EQ(resumed.report.loss_after, whole.report.loss_after);
    EXPECT_TRUE(resumed.last.norm.equal(whole.last.norm));
    for (size_t b = 0; b < whole.blocks.size(); ++b) {
      for (const auto& [suffix, linear] : whole.blocks[b].linears) {
        const RegionCodes& again = resumed.blocks[b].linears.at(suffix).codes.regions();
        const RegionCodes& expected = linear.codes.regions();
        EXPECT_EQ(again.code, expected.code);
        EXPECT_EQ(again.region, expected.region);
        EXPECT_EQ(again.scale, expected.scale);
      }
    }
  }
}

TEST_F(Distill, OneSmallStepOfEachKindLowersTheTrainingLoss) {
  for (const int kind : {0, 1, 2}) {
    DistillConfig one = config();
    one.steps = 12;
    one.batch = 70;                         // all of the windows
    one.code_rate = kind == 0 ? 0.03 : 0;   // far enough for codes to change
    one.scale_rate = kind == 1 ? 0.01 : 0;  // and for rounded scales
    one.norm_rate = kind == 2 ? 3e-3 : 0;
    const Result result = distilled(one, 2);
    EXPECT_LT(result.losses.back(), result.losses.front()) << "kind " << kind;
  }
}

TEST_F(Distill, NeedsTwoWindows) {
  tokens_.rows = 1;
  tokens_.values.resize(24);
  DistillConfig one = config();
  one.window = 24;
  EXPECT_THROW(distilled(one, 1), Error);
}

}  // namespace
}  // namespace billm
