// Tuning and distillation of every kind of block and of head: windows of the forward pass,
// gradients against central differences, the loss falls, biases stay.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <filesystem>
#include <functional>
#include <vector>

#include "../../../src/learn/kl_head.h"
#include "billm/calibrate/collect.h"
#include "billm/checkpoint/npy.h"
#include "billm/learn/distill.h"
#include "billm/learn/tune_block.h"
#include "billm/model/model.h"
#include "billm/model/runtime.h"
#include "billm/quantize/methods.h"
#include "support/compare.h"
#include "support/environment.h"

namespace billm {
namespace {

const c10::Device kCpu(c10::kCPU);

// Models of tests/support/make_tiny_model.py: rotary and grouped heads; biases; a gate whose
// gradient needs its result; a window; norms of heads; post-norm with projections; norms without
// weights; no final norm.
const std::vector<std::string> kCases = {"gqa",        "biases",   "relu",     "sliding",
                                         "qwen3_bias", "opt_350m", "opt_bare", "opt_no_final"};

std::span<const float> values(const at::Tensor& tensor) {
  return {tensor.const_data_ptr<float>(), static_cast<size_t>(tensor.numel())};
}

constexpr int64_t kLength = 24;

// A case's model with the inputs of its first block.
struct Subject {
  explicit Subject(const std::filesystem::path& path) : model(path, 1) {
    const at::NoGradGuard no_grad;
    for (int64_t i = 0; i < tokens.rows * tokens.cols; ++i) {
      tokens.values.push_back(static_cast<int32_t>((i * i * 7 + i * 13) % 97));
    }
    for (int64_t row = 0; row < tokens.rows; ++row) {
      hidden.push_back(Embedding(model.weights(), spec())(tokens.row(row)));
    }
    rope = make_rope(spec(), kLength, kCpu);
    block = load_block(model.weights(), spec(), 0, 1, kCpu);
    for (const NormSpec& norm : spec().family->norms) types[norm.suffix] = at::kFloat;
  }
  const ModelSpec& spec() const { return model.spec(); }

  // All linears of block `index`, whose inputs are `states`, by BiLLM.
  std::map<std::string, TunedLinear> quantized(const Block& original,
                                               const std::vector<at::Tensor>& states) const {
    MethodConfig method;
    method.block_size = 32;
    const TensorSequences sequences(states);
    BlockWalk walk(spec(), sequences, false);
    const auto stats = collect_stats(spec(), original, rope, walk, {});
    std::map<std::string, TunedLinear> linears;
    for (const LinearSpec& linear : spec().family->linears) {
      const at::Tensor weight = original.weight(linear.suffix).contiguous();
      const Hessian hessian = make_hessian(stats.at(linear.group), true, 0.01, 1);
      linears[linear.suffix] = {
          weight, find_method("billm").quantize(
                      {weight.const_data_ptr<float>(), weight.size(0), weight.size(1)}, hessian,
                      method, {})};
    }
    return linears;
  }

  Model model;
  TokenMatrix tokens{32, kLength, {}};
  std::vector<at::Tensor> hidden;
  Rope rope;
  Block block;
  NormTypes types;
};

// The slope of `loss` along the gradient of `*variable`, measured.
double slope(at::Tensor* variable, const at::Tensor& gradient, double step,
             const std::function<double()>& loss) {
  const at::NoGradGuard no_grad;
  const at::Tensor start = *variable, direction = gradient.div(gradient.norm());
  *variable = start.add(direction, step);
  const double up = loss();
  *variable = start.sub(direction, step);
  const double down = loss();
  *variable = start;
  return (up - down) / (2 * step);
}

void windows_agree(const Subject& subject) {
  const at::NoGradGuard no_grad;
  const at::Tensor& hidden = subject.hidden[0];
  const at::Tensor whole = forward_block(subject.spec(), subject.block, hidden, subject.rope);
  const double scale = test::root_mean_square(values(whole));
  for (const int64_t first : {0, 1, 15, 23}) {
    const at::Tensor part =
        forward_block(subject.spec(), subject.block, hidden, subject.rope, first);
    const at::Tensor expected = whole.narrow(0, first, kLength - first).contiguous();
    EXPECT_TRUE(test::close(values(part.contiguous()), values(expected),
                            {.absolute = 1e-5 * scale, .relative = 1e-4}))
        << "first " << first;
  }
}

// d loss / d weight through every linear and norm, and d loss / d input.
void gradients_agree(const Subject& subject) {
  const at::AutoGradMode mode(true);
  Block block = subject.block;
  at::Tensor hidden = subject.hidden[0];
  const at::Tensor target = subject.hidden[1].narrow(0, 15, kLength - 15);
  std::map<std::string, at::Tensor> weights;
  for (const auto& [suffix, linear] : block.linears) weights[suffix] = block.weight(suffix);
  const auto loss_of = [&] {
    for (const auto& [suffix, weight] : weights) block.set_weight(suffix, weight);
    return forward_block(subject.spec(), block, hidden, subject.rope, 15)
        .sub(target)
        .square()
        .mean();
  };
  std::vector<std::pair<std::string, at::Tensor*>> leaves = {{"input", &hidden}};
  for (auto& [suffix, weight] : block.norms) leaves.emplace_back(suffix, &weight);
  for (auto& [suffix, weight] : weights) leaves.emplace_back(suffix, &weight);
  std::vector<at::Tensor> variables;
  for (const auto& [name, leaf] : leaves) {
    *leaf = leaf->clone().set_requires_grad(true);
    variables.push_back(*leaf);
  }
  const auto gradients = torch::autograd::grad({loss_of()}, variables);
  for (size_t i = 0; i < leaves.size(); ++i) {
    const double found =
        slope(leaves[i].second, gradients[i], 3e-3, [&] { return loss_of().item<double>(); });
    const double expected = gradients[i].norm().item<double>();
    EXPECT_NEAR(found, expected, 0.02 * expected + 1e-6) << leaves[i].first;
  }
}

// The divergence against its definition, and its gradients.
void head_agrees(const Subject& subject) {
  const at::NoGradGuard no_grad;
  const ModelWeights& weights = subject.model.weights();
  const ModelSpec& spec = subject.spec();
  FinalLayers last = load_final_layers(weights, spec, kCpu);
  EXPECT_EQ(last.norm.defined(), spec.has_final_norm() && spec.norms_have_weights());
  at::Tensor hidden = subject.hidden[0];
  const at::Tensor teacher = final_states(spec, last, subject.hidden[1]);
  const auto loss_of = [&] { return kl_head(weights, spec, hidden, last, teacher, false).loss; };
  const KlHead head = kl_head(weights, spec, hidden, last, teacher, true);
  const at::Tensor log_p = at::log_softmax(logits(weights, spec, teacher), 1);
  const at::Tensor log_q =
      at::log_softmax(logits(weights, spec, final_states(spec, last, hidden)), 1);
  const double expected = log_p.exp().mul(log_p.sub(log_q)).sum().item<double>() / kLength;
  EXPECT_NEAR(head.loss, expected, 1e-5 * expected);
  EXPECT_GT(head.loss, 0.01);
  const double of_hidden = head.hidden.norm().item<double>();
  EXPECT_NEAR(slope(&hidden, head.hidden, 1e-2, loss_of), of_hidden, 0.02 * of_hidden);
  ASSERT_EQ(head.norm.defined(), last.norm.defined());
  if (!last.norm.defined()) return;
  const double of_norm = head.norm.norm().item<double>();
  EXPECT_NEAR(slope(&last.norm, head.norm, 1e-2, loss_of), of_norm, 0.02 * of_norm);
}

// Norms change, if there are any; biases and the window do not.
void tuning_helps(const Subject& subject) {
  const at::NoGradGuard no_grad;
  Block block = subject.block;
  auto linears = subject.quantized(block, subject.hidden);
  std::vector<at::Tensor> targets = subject.hidden;
  advance(subject.spec(), subject.block, subject.rope, targets, 1);
  TuneConfig config;
  config.steps = 80;
  config.window = 10;
  config.batch = 12;
  const TuneReport report = tune_block(subject.spec(), subject.rope, subject.hidden, targets,
                                       HeavyTokens(), config, subject.types, 2, &block, &linears);
  EXPECT_GT(report.best_step, 0);
  EXPECT_LT(report.loss_after, 0.97 * report.loss_before);
  ASSERT_EQ(block.norms.size(), subject.block.norms.size());
  for (const auto& [suffix, weight] : block.norms) {
    EXPECT_FALSE(weight.equal(subject.block.norms.at(suffix))) << suffix;
  }
  EXPECT_EQ(block.window, subject.block.window);
  ASSERT_EQ(block.biases.size(), subject.block.biases.size());
  for (const auto& [suffix, bias] : block.biases) {
    EXPECT_TRUE(bias.equal(subject.block.biases.at(suffix))) << suffix;
  }
}

// One step over all windows at a time lowers their loss, and the teacher is the original.
void distilling_helps(const Subject& subject) {
  const at::NoGradGuard no_grad;
  const ModelWeights& weights = subject.model.weights();
  std::vector<DistilledBlock> blocks;
  std::vector<at::Tensor> states = subject.hidden;
  for (int64_t b = 0; b < subject.spec().blocks(); ++b) {
    const Block original = load_block(weights, subject.spec(), b, 1, kCpu);
    blocks.push_back({load_block_vectors(weights, subject.spec(), b, kCpu), subject.types,
                      subject.quantized(original, states)});
    advance(subject.spec(), original, subject.rope, states, 1);
  }
  DistillConfig config;
  config.steps = 8;
  config.window = 12;
  config.batch = 70;
  config.scale_rate = config.norm_rate = 3e-3;
  FinalLayers last = load_final_layers(weights, subject.spec(), kCpu);
  TokenMatrix tokens = subject.tokens;
  tokens.rows = 10;
  tokens.values.resize(static_cast<size_t>(tokens.rows * tokens.cols));
  const std::vector<double> losses = distill(weights, subject.spec(), tokens, config, at::kFloat, 2,
                                             kCpu, {}, nullptr, "", &blocks, &last)
                                         .losses;
  EXPECT_LT(losses.back(), losses.front());
}

// One test for all cases and checks: the models are made once.
TEST(TuneFamilies, WindowsGradientsHeadsTuningAndDistillation) {
  BILLM_NEED(python, "BILLM_PYTHON");
  init_torch();
  const test::TinyModels models(python, kCases);
  for (const std::string& name : kCases) {
    SCOPED_TRACE(name);
    const Subject subject(models.path(name));
    windows_agree(subject);
    gradients_agree(subject);
    head_agrees(subject);
    tuning_helps(subject);
    distilling_helps(subject);
  }
}

}  // namespace
}  // namespace billm
