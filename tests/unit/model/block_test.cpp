// The forward pass against transformers, on random tiny models of every family in many
// configurations (tests/support/make_tiny_model.py).
#include "billm/model/block.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>
#include <gtest/gtest.h>

#include <numeric>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "billm/base/error.h"
#include "billm/checkpoint/npy.h"
#include "billm/model/model.h"
#include "billm/model/runtime.h"
#include "support/compare.h"
#include "support/environment.h"
#include "support/packed_testing.h"
#include "support/random_layer.h"
#include "support/tiny_checkpoint.h"

namespace billm {
namespace {

std::span<const float> values(const at::Tensor& tensor) {
  return {tensor.const_data_ptr<float>(), static_cast<size_t>(tensor.numel())};
}

void expect_agreement(const std::filesystem::path& path) {
  const TokenMatrix tokens = read_npy(path / "tokens.npy");
  const std::vector<float> expected_logits = test::read_floats(path / "logits.f32");
  const std::vector<float> expected_hidden = test::read_floats(path / "hidden.f32");

  init_torch();
  const at::NoGradGuard no_grad;
  const c10::Device cpu(c10::kCPU);
  const Model model(path, 2);
  const ModelSpec& spec = model.spec();
  const Rope rope = make_rope(spec, tokens.cols, cpu);
  const FinalLayers last = load_final_layers(model.weights(), spec, cpu);
  std::vector<float> all_logits, all_hidden;
  for (int64_t row = 0; row < tokens.rows; ++row) {
    at::Tensor hidden = Embedding(model.weights(), spec)(tokens.row(row));
    for (int64_t b = 0; b < spec.blocks(); ++b) {
      const Block block = load_block(model.weights(), spec, b, 2, cpu);
      const at::Tensor before = hidden.clone();
      const at::Tensor after = forward_block(spec, block, hidden, rope);
      EXPECT_TRUE(hidden.equal(before)) << "forward_block changed its argument";
      hidden = after;
      if (b == 0) {
        const auto part = values(hidden);
        all_hidden.insert(all_hidden.end(), part.begin(), part.end());
      }
    }
    const at::Tensor out =
        logits(model.weights(), spec, final_states(spec, last, hidden)).contiguous();
    const auto part = values(out);
    all_logits.insert(all_logits.end(), part.begin(), part.end());
  }
  const double hidden_scale = test::root_mean_square(expected_hidden);
  EXPECT_TRUE(test::close(all_hidden, expected_hidden,
                          {.absolute = 1e-5 * hidden_scale, .relative = 1e-5}));
  const double logit_scale = test::root_mean_square(expected_logits);
  EXPECT_TRUE(
      test::close(all_logits, expected_logits, {.absolute = 1e-5 * logit_scale, .relative = 1e-4}));
}

TEST(Block, AgreesWithTransformersInEveryFamily) {
  BILLM_NEED(python, "BILLM_PYTHON");
  const test::TinyModels models(python);
  std::set<std::string> tested;
  for (const std::string& name : models.names()) {
    SCOPED_TRACE(name);
    expect_agreement(models.path(name));
    tested.insert(read_config(models.path(name) / "config.json").model_type);
  }
  for (const Family& family : families()) EXPECT_EQ(tested.count(family.model_type), 1u);
}

TEST(Block, WalksFromGroupToGroup) {
  const test::TemporaryDirectory directory;
  test::TinyLlama options;
  options.hidden = 48;
  options.intermediate = 112;
  options.kv_heads = 4;
  options.head_dim = 20;
  test::write_tiny_llama(directory.path(), options);
  init_torch();
  const at::NoGradGuard no_grad;
  const c10::Device cpu(c10::kCPU);
  const Model model(directory.path(), 1);
  const ModelSpec& spec = model.spec();
  const Block block = load_block(model.weights(), spec, 1, 1, cpu);
  int64_t bytes = 0;
  for (const auto& [suffix, linear] : block.linears) bytes += linear->bytes();
  EXPECT_EQ(bytes, 4 * (4 * 48 * 80 + 3 * 48 * 112));
  const std::vector<int32_t> tokens = {5, 6, 7, 8, 9};
  const at::Tensor hidden = Embedding(model.weights(), spec)(tokens);
  std::vector<std::string> seen;
  std::vector<int64_t> widths;
  // Rope may be longer than the sequence.
  const Rope rope = make_rope(spec, 9, cpu);
  BlockPoint point = enter_block(spec, block, hidden);
  for (const std::string& group : spec.groups()) {
    walk_block(spec, block, rope, group, &point);
    EXPECT_EQ(point.stream.sizes(), hidden.sizes());
    seen.push_back(point.group);
    EXPECT_EQ(point.input.size(0), 5);
    widths.push_back(point.input.size(1));
  }
  EXPECT_EQ(seen,
            (std::vector<std::string>{"attention_in", "attention_out", "mlp_in", "mlp_middle"}));
  EXPECT_EQ(widths, (std::vector<int64_t>{48, 80, 48, 112}));
  BlockPoint late = enter_block(spec, block, hidden);
  walk_block(spec, block, rope, "mlp_in", &late);
  EXPECT_THROW(walk_block(spec, block, rope, "attention_out", &late), Error);
  walk_block(spec, block, rope, "", &point);
  EXPECT_TRUE(point.input.equal(forward_block(spec, block, hidden, rope)));
}

TEST(Block, LinearsThatCannotBeRunPackedHaveTheRunnersThreads) {
  const test::TemporaryDirectory directory;
  test::write_tiny_llama(directory.path());
  const c10::Device cpu(c10::kCPU);
  const Model model(directory.path(), 1);
  CpuRunner runner(2);
  const Block block = load_running_block(model.weights(), model.spec(), 0, runner, cpu);
  EXPECT_EQ(block.linears.size(), 7u);
  for (const auto& [suffix, shared] : block.linears) {
    const at::Tensor weight = model.weights().linear("model.layers.0." + suffix, 1);
    const at::Tensor x = weight.narrow(0, 0, 3), expected = at::mm(x, weight.t());
    EXPECT_LT(shared->apply(x).sub(expected).norm().item<double>(),
              1e-6 * expected.norm().item<double>())
        << suffix;
  }
}

// Query, key and value that are rotated alike get their input rotated once; if one differs, each
// rotates for itself. What the block gives is that of the decoded weights in both cases.
TEST(Block, ARotationThatAGroupSharesIsTakenOffIt) {
  const test::TemporaryDirectory directory;
  const auto dense = directory.path() / "dense", packed = directory.path() / "packed";
  test::write_tiny_llama(dense);
  const c10::Device cpu(c10::kCPU);
  const at::NoGradGuard no_grad;
  for (const bool alike : {true, false}) {
    PackedByModule layers;
    for (const auto& [name, rows] : {std::pair{"q", 64}, {"k", 32}, {"v", 32}}) {
      LayerCodes codes;
      const uint32_t seed = !alike && *name == 'v' ? 8 : 7;
      codes.factors = {Rotation{rows, 3, true}, some_codes(rows, 64), Rotation{64, seed, false}};
      layers[std::string("model.layers.0.self_attn.") + name + "_proj"] = pack(codes);
    }
    write_packed(dense, packed, layers);
    const Model model(packed, 1);
    CpuRunner runner(1);
    const Block run = load_running_block(model.weights(), model.spec(), 0, runner, cpu);
    ASSERT_EQ(run.inputs.size(), alike ? 1u : 0u);
    if (alike) {
      EXPECT_EQ(run.inputs.begin()->first, "attention_in");
    }
    const Block decoded = load_block(Model(packed, 1).weights(), model.spec(), 0, 1, cpu);
    std::vector<float> numbers = test::random_normal(5 * 64, 9);
    const at::Tensor hidden = at::from_blob(numbers.data(), {5, 64}, at::kFloat);
    const Rope rope = make_rope(model.spec(), 5, cpu);
    const at::Tensor expected = forward_block(model.spec(), decoded, hidden, rope);
    const at::Tensor found = forward_block(model.spec(), run, hidden, rope);
    EXPECT_LT(found.sub(expected).norm().item<double>(), 0.02 * expected.norm().item<double>());
    const at::Tensor without = forward_block(
        model.spec(), load_block(Model(dense, 1).weights(), model.spec(), 0, 1, cpu), hidden, rope);
    EXPECT_GT(without.sub(expected).norm().item<double>(), 0.1 * expected.norm().item<double>());
  }
}

TEST(Block, PagesOfTheEmbeddingDoNotStay) {
  const test::TemporaryDirectory directory;
  test::TinyLlama options;
  options.vocab = 20000;
  test::write_tiny_llama(directory.path(), options);
  const auto file = directory.path() / "model.safetensors";
  const Model model(directory.path(), 1);
  const Embedding embed(model.weights(), model.spec());
  std::vector<int32_t> tokens(20000);
  std::iota(tokens.begin(), tokens.end(), 0);
  const int64_t before = test::resident_bytes(file);
  EXPECT_EQ(embed(tokens).sizes(), (at::IntArrayRef{20000, 64}));  // 2.5 MB
  EXPECT_LT(test::resident_bytes(file), before + (256 << 10));
}

}  // namespace
}  // namespace billm
