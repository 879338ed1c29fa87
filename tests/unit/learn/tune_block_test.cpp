// Tuning a block of a random model: the loss falls, nothing depends on threads, and a tuning that
// does not help changes nothing. The forward pass with its gradients: families_test.cpp.
#include "billm/learn/tune_block.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
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

constexpr const char* kAttentionNorm = "input_layernorm";
constexpr const char* kMlpNorm = "post_attention_layernorm";

class TuneBlock : public testing::Test {
 protected:
  void SetUp() override {
    init_torch();
    const at::NoGradGuard no_grad;
    test::write_tiny_llama(directory_.path());
    model_.emplace(directory_.path(), 1);
    for (size_t i = 0; i < 48; ++i) {
      std::vector<int32_t> tokens(48);
      for (size_t t = 0; t < tokens.size(); ++t) {
        tokens[t] = static_cast<int32_t>((t * t * (7 + i) + i * 13 + t) % 80);
      }
      inputs_.push_back(Embedding(model_->weights(), spec())(tokens));
    }
    rope_ = make_rope(spec(), 48, kCpu);
    original_ = load_block(model_->weights(), spec(), 0, 1, kCpu);
    targets_ = inputs_;
    advance(spec(), original_, rope_, targets_, 1);
    const TensorSequences sequences(inputs_);
    BlockWalk walk(spec(), sequences, false);
    const auto stats = collect_stats(spec(), original_, rope_, walk, {});
    MethodConfig method;
    method.block_size = 32;
    for (const LinearSpec& linear : spec().family->linears) {
      const at::Tensor weight = original_.weight(linear.suffix).contiguous();
      const Hessian hessian = make_hessian(stats.at(linear.group), true, 0.01, 1);
      linears_[linear.suffix] = {
          weight, find_method("billm").quantize(
                      {weight.const_data_ptr<float>(), weight.size(0), weight.size(1)}, hessian,
                      method, {})};
    }
  }

  const ModelSpec& spec() const { return model_->spec(); }

  struct Result {
    TuneReport report;
    Block block;
    std::map<std::string, TunedLinear> linears;
  };
  Result tune(const TuneConfig& config, int threads, const HeavyTokens& heavy = {}) const {
    const at::NoGradGuard no_grad;
    Result result{{}, original_, linears_};
    const NormTypes halves = {{kAttentionNorm, at::kHalf}, {kMlpNorm, at::kHalf}};
    result.report = tune_block(spec(), rope_, inputs_, targets_, heavy, config, halves, threads,
                               &result.block, &result.linears);
    return result;
  }
  static at::Tensor decoded(const LayerCodes& codes) {
    std::vector<float> weight = dequantize(codes);
    return at::from_blob(weight.data(), {codes.rows(), codes.cols()}, at::kFloat).clone();
  }
  // With the weights that its codes decode to.
  static Block finished(const Result& result) {
    Block block = result.block;
    for (const auto& [suffix, linear] : result.linears) {
      block.set_weight(suffix, decoded(linear.codes));
    }
    return block;
  }
  // The mean relative error of the first token of each sequence.
  double first_loss(const Block& block) const {
    const at::NoGradGuard no_grad;
    double sum = 0;
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const at::Tensor output = forward_block(spec(), block, inputs_[i].narrow(0, 0, 1), rope_);
      const at::Tensor target = targets_[i].narrow(0, 0, 1);
      sum += output.sub(target).square().sum().div(target.square().sum()).item<double>();
    }
    return sum / static_cast<double>(inputs_.size());
  }
  double loss(const Block& block) const {
    const at::NoGradGuard no_grad;
    double sum = 0;
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const at::Tensor output = forward_block(spec(), block, inputs_[i], rope_);
      sum += output.sub(targets_[i])
                 .square()
                 .sum(at::IntArrayRef{1})
                 .div(targets_[i].square().sum(at::IntArrayRef{1}))
                 .mean()
                 .item<double>();
    }
    return sum / static_cast<double>(inputs_.size());
  }

  test::TemporaryDirectory directory_;
  std::optional<Model> model_;
  std::vector<at::Tensor> inputs_, targets_;
  Rope rope_;
  Block original_;
  std::map<std::string, TunedLinear> linears_;
};

TuneConfig config() {
  TuneConfig tune;
  tune.steps = 60;
  tune.window = 20;
  tune.batch = 12;
  return tune;
}

TEST_F(TuneBlock, LowersTheLossAndReturnsWhatTheCodesSay) {
  const Result tuned = tune(config(), 1);
  EXPECT_GT(tuned.report.best_step, 0);
  EXPECT_LT(tuned.report.loss_after, 0.9 * tuned.report.loss_before);
  Block before = original_;
  for (const auto& [suffix, linear] : linears_) before.set_weight(suffix, decoded(linear.codes));
  const Block after = finished(tuned);
  for (const auto& [suffix, linear] : tuned.linears) {
    check_codes(linear.codes);
    EXPECT_NE(linear.codes.regions().code, linears_.at(suffix).codes.regions().code) << suffix;
    EXPECT_NE(linear.codes.regions().scale, linears_.at(suffix).codes.regions().scale) << suffix;
    EXPECT_EQ(linear.codes.regions().salient, linears_.at(suffix).codes.regions().salient)
        << suffix;
    EXPECT_TRUE(tuned.block.weight(suffix).is_same(original_.weight(suffix))) << suffix;
  }
  EXPECT_LT(loss(after), 0.9 * loss(before));
  const at::Tensor& norm = tuned.block.norms.at(kMlpNorm);
  EXPECT_TRUE(norm.equal(norm.to(at::kHalf).to(at::kFloat)));
  EXPECT_FALSE(norm.equal(original_.norms.at(kMlpNorm)));
}

// Tokens that count more are learned better, at the others' cost; counting once changes nothing.
TEST_F(TuneBlock, HeavyTokens) {
  const Result plain = tune(config(), 2);
  HeavyTokens heavy = {1, std::vector<std::vector<int64_t>>(inputs_.size(), {0})};
  EXPECT_EQ(tune(config(), 2, heavy).report.loss_after, plain.report.loss_after);
  heavy.times = 100;
  const Result weighted = tune(config(), 2, heavy);
  EXPECT_GT(weighted.report.best_step, 0);
  const Block block = finished(weighted), other = finished(plain);
  EXPECT_LT(first_loss(block), 0.8 * first_loss(other));
  EXPECT_GT(loss(block), loss(other));
  EXPECT_EQ(tune(config(), 1, heavy).report.loss_after, weighted.report.loss_after);
}

// The first token of each sequence has no error before; what lowers the loss moves it.
TEST_F(TuneBlock, NothingIsGainedAtTheCostOfHeavyTokens) {
  const Block start = finished({{}, original_, linears_});
  {
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < targets_.size(); ++i) {
      const at::Tensor first = inputs_[i].narrow(0, 0, 1);
      targets_[i].narrow(0, 0, 1).copy_(forward_block(spec(), start, first, rope_));
    }
  }
  ASSERT_LT(first_loss(start), 1e-9);
  HeavyTokens heavy = {1, std::vector<std::vector<int64_t>>(inputs_.size())};
  const Result free = tune(config(), 2, heavy);
  EXPECT_GT(free.report.best_step, 0);
  EXPECT_GT(first_loss(finished(free)), 2e-3);
  heavy = {2, std::vector<std::vector<int64_t>>(inputs_.size(), {0})};
  EXPECT_LT(first_loss(finished(tune(config(), 2, heavy))), 1e-3);
}

TEST_F(TuneBlock, ThreadsDoNotMatter) {
  const Result one = tune(config(), 1), three = tune(config(), 3);
  EXPECT_EQ(one.report.loss_after, three.report.loss_after);
  for (const auto& [suffix, linear] : one.linears) {
    EXPECT_TRUE(decoded(linear.codes).equal(decoded(three.linears.at(suffix).codes))) << suffix;
  }
  for (const char* norm : {kAttentionNorm, kMlpNorm}) {
    EXPECT_TRUE(one.block.norms.at(norm).equal(three.block.norms.at(norm)));
  }
}

TEST_F(TuneBlock, ARuinousTuningChangesNothing) {
  TuneConfig tune_config = config();
  tune_config.code_rate = tune_config.scale_rate = tune_config.norm_rate = 3;
  const Result tuned = tune(tune_config, 2);
  EXPECT_EQ(tuned.report.best_step, 0);
  EXPECT_EQ(tuned.report.loss_after, tuned.report.loss_before);
  for (const auto& [suffix, linear] : tuned.linears) {
    EXPECT_EQ(linear.codes.regions().code, linears_.at(suffix).codes.regions().code) << suffix;
    EXPECT_EQ(linear.codes.regions().scale, linears_.at(suffix).codes.regions().scale) << suffix;
  }
  EXPECT_TRUE(tuned.block.norms.at(kMlpNorm).equal(original_.norms.at(kMlpNorm)));
}

TEST_F(TuneBlock, OneWindowCannotBeHeldOut) {
  inputs_.resize(1);
  targets_.resize(1);
  TuneConfig tune_config = config();
  tune_config.window = 48;
  EXPECT_THROW(tune(tune_config, 1), Error);
}

}  // namespace
}  // namespace billm
