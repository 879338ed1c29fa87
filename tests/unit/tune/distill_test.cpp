// Distillation of a whole random model: KL falls on text that was held out, every kind of parameter
// lowers the training loss, and what is stored has the loss that was reported.
#include "billm/tune/distill.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <gtest/gtest.h>

#include <optional>

#include "../../../src/tune/kl_head.h"
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
      hidden.push_back(embed(model_->weights(), spec(), tokens_.row(row)));
    }
    rope_ = make_rope(spec(), tokens_.cols, kCpu);
    MethodConfig method;
    method.block_size = 32;
    for (int64_t b = 0; b < spec().blocks(); ++b) {
      DistilledBlock quantized;
      quantized.block = load_block(model_->weights(), spec(), b, 1, kCpu);
      const auto stats = collect_stats(spec(), quantized.block, rope_, TensorSequences(hidden), {});
      for (const LinearSpec& linear : spec().family->linears) {
        at::Tensor& weight = quantized.block.linears.at(linear.suffix);
        weight = weight.contiguous();
        const Hessian hessian = make_hessian(stats.at(linear.group), true, 0.01, 1);
        quantized.linears[linear.suffix] = {
            weight,
            find_method("billm").quantize(
                {weight.const_data_ptr<float>(), weight.size(0), weight.size(1)}, hessian, method)};
      }
      quantized.types = {at::kHalf, at::kHalf};
      blocks_.push_back(quantized);
      advance(spec(), quantized.block, rope_, hidden, 1);
    }
    final_norm_ = model_->weights().dense(spec().family->final_norm, 1);
  }

  const ModelSpec& spec() const { return model_->spec(); }

  struct Result {
    TuneReport report;
    std::vector<double> losses;
    std::vector<DistilledBlock> blocks;
    at::Tensor final_norm;
  };
  Result distilled(const DistillConfig& config, int threads) const {
    const at::NoGradGuard no_grad;
    Result result{{}, {}, blocks_, final_norm_};
    result.report = distill(
        model_->weights(), spec(), tokens_, config, at::kHalf, threads, kCpu,
        [&](int, double loss) { result.losses.push_back(loss); }, &result.blocks,
        &result.final_norm);
    return result;
  }

  test::TemporaryDirectory directory_;
  std::optional<Model> model_;
  TokenMatrix tokens_;
  Rope rope_;
  std::vector<DistilledBlock> blocks_;
  at::Tensor final_norm_;
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
  EXPECT_FALSE(result.final_norm.equal(final_norm_));
  for (const DistilledBlock& block : result.blocks) {
    for (const auto& [suffix, linear] : block.linears) check_codes(linear.codes);
  }
  // The stored state has the stored loss.
  DistillConfig still = config();
  still.steps = 1;
  still.code_rate = still.scale_rate = still.norm_rate = 0;
  const at::NoGradGuard no_grad;
  std::vector<DistilledBlock> blocks = result.blocks;
  at::Tensor norm = result.final_norm;
  const TuneReport again = distill(
      model_->weights(), spec(), tokens_, still, at::kHalf, 1, kCpu, [](int, double) {}, &blocks,
      &norm);
  EXPECT_NEAR(again.loss_before, result.report.loss_after, 1e-6);
}

// With norms in fp32 (nothing is rounded on the way out) and a rate at which later steps spoil what
// earlier ones gained: what comes back is the best state, not the last.
TEST_F(Distill, KeepsTheBestStateInFullPrecision) {
  for (DistilledBlock& block : blocks_) block.types = {at::kFloat, at::kFloat};
  DistillConfig wild = config();
  wild.steps = 16;
  wild.batch = 2;
  wild.code_rate = wild.scale_rate = 0;
  bool spoiled = false;
  for (const double rate : {0.05, 0.1, 0.2, 0.4}) {
    wild.norm_rate = rate;
    const at::NoGradGuard no_grad;
    std::vector<DistilledBlock> blocks = blocks_;
    at::Tensor norm = final_norm_;
    const TuneReport report = distill(
        model_->weights(), spec(), tokens_, wild, at::kFloat, 2, kCpu, [](int, double) {}, &blocks,
        &norm);
    spoiled |= report.best_step < wild.steps;
    DistillConfig still = wild;
    still.steps = 1;
    still.norm_rate = 0;
    const TuneReport again = distill(
        model_->weights(), spec(), tokens_, still, at::kFloat, 1, kCpu, [](int, double) {}, &blocks,
        &norm);
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

// The divergence against its definition, and both gradients against central differences.
TEST_F(Distill, HeadGivesTheDivergenceAndItsGradients) {
  const at::NoGradGuard no_grad;
  const at::Tensor hidden = embed(model_->weights(), spec(), tokens_.row(0)).mul(3);
  const at::Tensor other = embed(model_->weights(), spec(), tokens_.row(1)).mul(3);
  const at::Tensor teacher = final_norm(spec(), final_norm_, other);
  const auto loss_of = [&](const at::Tensor& h, const at::Tensor& n) {
    return kl_head(model_->weights(), spec(), h, n, teacher, false).loss;
  };
  const KlHead head = kl_head(model_->weights(), spec(), hidden, final_norm_, teacher, true);
  const at::Tensor log_p = at::log_softmax(logits(model_->weights(), spec(), teacher), 1);
  const at::Tensor log_q = at::log_softmax(
      logits(model_->weights(), spec(), final_norm(spec(), final_norm_, hidden)), 1);
  const double expected = log_p.exp().mul(log_p.sub(log_q)).sum().item<double>() / 24;
  EXPECT_NEAR(head.loss, expected, 1e-5 * expected);
  EXPECT_GT(head.loss, 0.01);
  const double step = 1e-2;
  const at::Tensor along_hidden = head.hidden.div(head.hidden.norm());
  const double slope = (loss_of(hidden.add(along_hidden, step), final_norm_) -
                        loss_of(hidden.sub(along_hidden, step), final_norm_)) /
                       (2 * step);
  EXPECT_NEAR(slope, head.hidden.norm().item<double>(), 0.02 * slope);
  const at::Tensor along_norm = head.norm.div(head.norm.norm());
  const double norm_slope = (loss_of(hidden, final_norm_.add(along_norm, step)) -
                             loss_of(hidden, final_norm_.sub(along_norm, step))) /
                            (2 * step);
  EXPECT_NEAR(norm_slope, head.norm.norm().item<double>(), 0.02 * norm_slope);
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
