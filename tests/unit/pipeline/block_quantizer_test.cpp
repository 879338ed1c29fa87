// The block program on a tiny model: every method, in which order it asks for sums, what it leaves
// in the block and reports, tuned layers, planned ones.
#include "src/pipeline/block_quantizer.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <set>

#include "billm/model/model.h"
#include "billm/model/runtime.h"
#include "src/pipeline/collected_stats.h"
#include "support/environment.h"
#include "support/tiny_checkpoint.h"

namespace billm {
namespace {

const c10::Device kCpu(c10::kCPU);

MethodConfig config_of(const std::string& method) {
  MethodConfig config(method);
  config.targets = Targets::kOwn;  // those of the inputs that the tests give
  if (config.block_size > 32) config.block_size = 32;
  return config;
}

class BlockQuantizerTest : public testing::Test {
 protected:
  void SetUp() override {
    init_torch();
    test::write_tiny_llama(directory_.path());
    model_.emplace(directory_.path(), 1);
    for (const int64_t length : {40, 57, 33}) {
      std::vector<int32_t> tokens(static_cast<size_t>(length));
      for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * i * 7 % 80);
      hidden_.push_back(Embedding(model_->weights(), spec())(tokens));
    }
    rope_ = make_rope(spec(), 57, kCpu);
    processes_ = ProcessGroup::from_environment(true);
    own_ = own_sequences(3, *processes_);
  }

  const ModelSpec& spec() const { return model_->spec(); }
  Block original() const { return load_block(model_->weights(), spec(), 1, 1, kCpu); }

  // Block 1, quantized on what `hidden_` make of it; `block` is left as the quantizer leaves it.
  QuantizedBlock quantize(const MethodConfig& config, bool sequential, Block* block,
                          const LayerPlan& plan = {}, const BlockTuner& tune = {},
                          int threads = 1) {
    const at::NoGradGuard no_grad;
    const TensorSequences sequences(hidden_);
    const bool corrected = config.targets == Targets::kCorrected;
    const TensorSequences originals(originals_);
    BlockWalk walk(spec(), sequences, sequential), originals_walk(spec(), originals, sequential);
    CollectedStats stats(spec(), rope_, walk, own_, 3, *processes_,
                         {.sequential = sequential,
                          .forward_threads = threads,
                          .threads = threads,
                          .originals = corrected ? &originals_walk : nullptr},
                         &seconds_);
    const BlockQuantizer quantizer(spec(), config, {.threads = threads}, kCpu, &seconds_);
    asked_.clear();
    sums_.clear();
    const GroupStats take = [&](const Block& here, const std::string& group) {
      std::set<std::string> replaced;
      const Block before = original();
      for (const auto& [suffix, linear] : here.linears) {
        if (!here.weight(suffix).equal(before.weight(suffix))) replaced.insert(suffix);
      }
      asked_.push_back({group, replaced});
      CalibrationStats result = stats.take(before, here, group);
      sums_[group] = result;
      return result;
    };
    *block = original();
    return quantizer.quantize(1, plan, take, tune, block);
  }

  // tr(D H D') / tr(W H W') in double; the factor of H from X^T X cancels.
  double error_of(const LinearSpec& linear, const Block& block) const {
    const at::Tensor w = original().weight(linear.suffix), q = block.weight(linear.suffix);
    const CalibrationStats& sums = sums_.at(linear.group);
    const int64_t n = sums.width;
    double error = 0, norm = 0;
    for (int64_t row = 0; row < w.size(0); ++row) {
      const float* wr = w.const_data_ptr<float>() + row * n;
      const float* qr = q.const_data_ptr<float>() + row * n;
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t j = 0; j < n; ++j) {
          const double h = sums.xtx[static_cast<size_t>(i * n + j)];
          error += (double(wr[i]) - qr[i]) * h * (double(wr[j]) - qr[j]);
          norm += double(wr[i]) * h * wr[j];
        }
      }
    }
    return error / norm;
  }

  // What a finished block must be, whatever made it.
  void check(const QuantizedBlock& result, const Block& block) const {
    ASSERT_EQ(result.layers.size(), spec().family->linears.size());
    std::set<std::string> modules;
    for (const QuantizedLayer& layer : result.layers) {
      SCOPED_TRACE(layer.module);
      modules.insert(layer.module);
      EXPECT_EQ(layer.report.name, layer.module);
      EXPECT_EQ(layer.report.stored_bits, layer.packed.value().stored_bits());
      EXPECT_GT(layer.report.nominal_bits, 0);
      for (const LinearSpec& linear : spec().family->linears) {
        if (spec().module(1, linear) != layer.module) continue;
        EXPECT_EQ(layer.report.rows, linear.out_width(spec().config));
        EXPECT_EQ(layer.report.cols, linear.in_width(spec().config));
        EXPECT_TRUE(
            block.weight(linear.suffix).equal(decode_weight(*layer.packed, layer.module, 1)));
        const double expected = error_of(linear, block);
        EXPECT_NEAR(*layer.report.error, expected, 1e-4 * expected);
      }
    }
    EXPECT_EQ(modules.size(), result.layers.size());
  }

  struct Asked {
    std::string group;
    std::set<std::string> replaced;  // linears that were quantized by then
  };
  test::TemporaryDirectory directory_;
  std::optional<Model> model_;
  std::vector<at::Tensor> hidden_, originals_;  // originals_: for corrected targets
  Rope rope_;
  std::unique_ptr<ProcessGroup> processes_;
  OwnSequences own_;
  QuantizeSeconds seconds_;
  std::vector<Asked> asked_;
  std::map<std::string, CalibrationStats> sums_;
};

TEST_F(BlockQuantizerTest, EveryMethod) {
  for (const Method& method : methods()) {
    SCOPED_TRACE(method.name);
    Block block;
    const QuantizedBlock result = quantize(config_of(method.name), false, &block);
    check(result, block);
    EXPECT_FALSE(result.tune.has_value());
    EXPECT_TRUE(result.warnings.empty());
    for (const auto& [suffix, norm] : original().norms) {
      EXPECT_TRUE(block.norms.at(suffix).equal(norm)) << suffix;
    }
  }
  EXPECT_GT(seconds_.quantize, 0);
  EXPECT_GT(seconds_.pack, 0);
  EXPECT_GT(seconds_.forward, 0);
}

TEST_F(BlockQuantizerTest, GroupsInTurn) {
  Block block;
  quantize(config_of("rtn"), true, &block);
  ASSERT_EQ(asked_.size(), spec().groups().size());
  std::set<std::string> expected;
  for (size_t g = 0; g < asked_.size(); ++g) {
    EXPECT_EQ(asked_[g].group, spec().groups()[g]);
    EXPECT_EQ(asked_[g].replaced, expected) << asked_[g].group;
    for (const LinearSpec& linear : spec().family->linears) {
      if (linear.group == asked_[g].group) expected.insert(linear.suffix);
    }
  }
}

TEST_F(BlockQuantizerTest, SequentialSumsFollowTheQuantizedLinears) {
  Block block;
  check(quantize(config_of("billm"), false, &block), block);
  const auto all_at_once = sums_;
  check(quantize(config_of("billm"), true, &block), block);
  const std::vector<std::string> groups = spec().groups();
  EXPECT_EQ(sums_.at(groups[0]).xtx, all_at_once.at(groups[0]).xtx);
  for (size_t g = 1; g < groups.size(); ++g) {
    EXPECT_NE(sums_.at(groups[g]).xtx, all_at_once.at(groups[g]).xtx) << groups[g];
  }
}

// Inputs that are off: with corrected targets the block's outputs come nearer to the original's.
TEST_F(BlockQuantizerTest, CorrectedTargetsMakeUpForTheInputs) {
  const at::NoGradGuard no_grad;
  originals_ = hidden_;
  for (size_t i = 0; i < hidden_.size(); ++i) {
    const at::Tensor& state = originals_[i];
    // What a lossy block before might do: some channels too small, some mixed into others.
    hidden_[i] = state.mul(0.8).add(state.roll({1}, {1}), 0.3);
  }
  const auto distance = [&](const Block& block) {
    double sum = 0;
    for (size_t i = 0; i < hidden_.size(); ++i) {
      const at::Tensor expected = forward_block(spec(), original(), originals_[i], rope_);
      sum += forward_block(spec(), block, hidden_[i], rope_)
                 .sub(expected)
                 .square()
                 .sum()
                 .item<double>();
    }
    return sum;
  };
  MethodConfig config = config_of("gptq");
  config.bits = 4;
  Block own, corrected;
  check(quantize(config, true, &own), own);
  config.targets = Targets::kCorrected;
  config.target_share = config.stream_share = 1;
  const QuantizedBlock result = quantize(config, true, &corrected);
  EXPECT_EQ(result.layers.size(), spec().family->linears.size());
  for (const QuantizedLayer& layer : result.layers) EXPECT_LT(*layer.report.error, 0.05);
  EXPECT_LT(distance(corrected), 0.5 * distance(own));
  EXPECT_EQ(sums_.at("attention_out").stream_width(), spec().config.hidden_size);
  EXPECT_TRUE(sums_.at("mlp_in").drift.empty());
}

TEST_F(BlockQuantizerTest, SameForAnyThreads) {
  Block one, three;
  const QuantizedBlock expected = quantize(config_of("arb"), true, &one);
  const QuantizedBlock actual = quantize(config_of("arb"), true, &three, {}, {}, 3);
  for (size_t i = 0; i < expected.layers.size(); ++i) {
    const nlohmann::ordered_json a = expected.layers[i].report, b = actual.layers[i].report;
    EXPECT_EQ(a, b);
  }
  for (const auto& [suffix, linear] : one.linears) {
    EXPECT_TRUE(one.weight(suffix).equal(three.weight(suffix))) << suffix;
  }
}

TEST_F(BlockQuantizerTest, PlannedLayers) {
  const LinearSpec& planned = spec().family->linears[2];
  MethodConfig config = config_of("stbllm");
  config.nm = {4, 8};
  LayerPlan plan;
  plan[spec().module(1, planned)] = {{"nm", "6:8"}};
  Block block;
  const QuantizedBlock result = quantize(config, false, &block, plan);
  check(result, block);
  for (const QuantizedLayer& layer : result.layers) {
    EXPECT_EQ(layer.report.nm, layer.module == spec().module(1, planned) ? "6:8" : "4:8");
  }
}

// Each linear of a group in its own basis and by its own method, as if all of the group were; what
// stays keeps its weight, and a group of which all stay is not asked for.
TEST_F(BlockQuantizerTest, PlannedMethods) {
  MethodConfig run = config_of("trellis");
  run.targets = Targets::kOwn;
  run.sink_weight = 1;
  const std::map<std::string, std::string> planned = {
      {"self_attn.q_proj", "gptq"}, {"self_attn.v_proj", "billm"}, {"mlp.down_proj", "stays"}};
  std::map<std::string, Block> alone = {{"stays", original()}};
  quantize(run, false, &alone["trellis"]);
  for (const char* method : {"gptq", "billm"}) quantize(config_of(method), false, &alone[method]);
  LayerPlan plan;
  for (const auto& [suffix, method] : planned) {
    nlohmann::ordered_json& own = plan[spec().block_prefix(1) + suffix];
    own = {{"bits", 16}};
    if (method == "stays") continue;
    own = {{"method", method}, {"block_size", config_of(method).block_size}};
  }
  Block block;
  const QuantizedBlock result = quantize(run, false, &block, plan);
  ASSERT_EQ(result.layers.size(), spec().family->linears.size());
  for (const LinearSpec& linear : spec().family->linears) {
    SCOPED_TRACE(linear.suffix);
    const auto own = planned.find(linear.suffix);
    const Block& expected = alone.at(own == planned.end() ? "trellis" : own->second);
    EXPECT_TRUE(block.weight(linear.suffix).equal(expected.weight(linear.suffix)));
  }
  for (const QuantizedLayer& layer : result.layers) {
    EXPECT_EQ(layer.packed.has_value(), !stays(plan, layer.module)) << layer.module;
  }
  std::set<std::string> groups;
  for (const Asked& asked : asked_) groups.insert(asked.group);
  EXPECT_EQ(groups.size() + 1, spec().groups().size());
  EXPECT_EQ(groups.count(spec().groups().back()), 0u);
}

// --rotate: U' Q V, stored in as many bits, with the error of the weights that the bytes mean.
TEST_F(BlockQuantizerTest, Rotated) {
  for (const char* method : {"rtn", "gptq", "arb", "billm"}) {
    Block block;
    const QuantizedBlock plain = quantize(config_of(method), true, &block);
    for (const RotatedSides sides : {RotatedSides::kIn, RotatedSides::kBoth}) {
      SCOPED_TRACE(method);
      MethodConfig config = config_of(method);
      config.rotate = sides;
      const QuantizedBlock result = quantize(config, false, &block);
      check(result, block);
      const size_t in = sides == RotatedSides::kBoth ? 2 : 1;
      std::map<std::string, std::set<nlohmann::ordered_json>> inputs;  // by group
      std::set<nlohmann::ordered_json> outputs;
      for (size_t i = 0; i < result.layers.size(); ++i) {
        const LayerReport& report = result.layers[i].report;
        ASSERT_EQ(report.factors.size(), in + 1) << report.name;
        EXPECT_EQ(report.factors[in].kind, "rotation");
        EXPECT_EQ(report.factors[in].statistics["transposed"], false);
        EXPECT_EQ(report.factors[in - 1].kind, "planes");
        if (in == 2) {
          EXPECT_EQ(report.factors[0].kind, "rotation");
          EXPECT_EQ(report.factors[0].statistics["transposed"], true);
          outputs.insert(report.factors[0].statistics["seed"]);
        }
        for (const LinearSpec& linear : spec().family->linears) {
          if (spec().module(1, linear) != report.name) continue;
          inputs[linear.group].insert(report.factors[in].statistics["seed"]);
        }
        if (std::string(method) != "billm") {  // the number of salient columns differs
          EXPECT_EQ(report.stored_bits, plain.layers[i].report.stored_bits) << report.name;
        }
      }
      EXPECT_EQ(inputs.size(), spec().groups().size());
      for (const auto& [group, seeds] : inputs) EXPECT_EQ(seeds.size(), 1u) << group;
      EXPECT_EQ(outputs.size(), in == 2 ? result.layers.size() : 0u);
      config.rotate_seed = 1;
      Block other;
      quantize(config, false, &other);
      const std::string suffix = spec().family->linears[0].suffix;
      EXPECT_FALSE(other.weight(suffix).equal(block.weight(suffix)));
    }
  }
}

TEST_F(BlockQuantizerTest, RotatedSameForAnyThreadsAndTuned) {
  MethodConfig config = config_of("arb");
  config.rotate = RotatedSides::kBoth;
  Block one, three;
  quantize(config, true, &one);
  quantize(config, true, &three, {}, {}, 3);
  for (const auto& [suffix, linear] : one.linears) {
    EXPECT_TRUE(one.weight(suffix).equal(three.weight(suffix))) << suffix;
  }
  const BlockTuner tune = [&](std::map<std::string, TunedLinear>* linears, Block* block) {
    for (auto& [suffix, linear] : *linears) {
      EXPECT_TRUE(linear.original.equal(original().weight(suffix))) << suffix;
      EXPECT_EQ(linear.codes.factors.size(), 3u);
      const std::vector<float> decoded = dequantize(linear.codes);
      const float* now = block->weight(suffix).const_data_ptr<float>();
      EXPECT_TRUE(std::equal(decoded.begin(), decoded.end(), now)) << suffix;
      std::get<RegionCodes>(linear.codes.factors[1]).code[0] ^= 1;
    }
    return TuneReport();
  };
  Block block;
  check(quantize(config, true, &block, {}, tune), block);
}

// What the tuner leaves is what is packed, and it sees the block as it is quantized.
TEST_F(BlockQuantizerTest, TunedCodesAndNormsAreStored) {
  for (const bool sequential : {false, true}) {
    int calls = 0;
    const BlockTuner tune = [&](std::map<std::string, TunedLinear>* linears, Block* block) {
      ++calls;
      EXPECT_EQ(linears->size(), spec().family->linears.size());
      const Block before = original();
      for (auto& [suffix, linear] : *linears) {
        EXPECT_TRUE(linear.original.equal(before.weight(suffix))) << suffix;
        const std::vector<float> decoded = dequantize(linear.codes);
        const float* now = block->weight(suffix).const_data_ptr<float>();
        EXPECT_TRUE(std::equal(decoded.begin(), decoded.end(), now)) << suffix;
        linear.codes.regions().code[0] ^= 1;
      }
      for (auto& [suffix, norm] : block->norms) norm = norm.add(0.25);
      TuneReport report;
      report.loss_before = 2;
      report.seconds = 3;
      return report;
    };
    seconds_ = {};
    Block untuned, block;
    const QuantizedBlock plain = quantize(config_of("billm"), sequential, &untuned);
    const QuantizedBlock result = quantize(config_of("billm"), sequential, &block, {}, tune);
    EXPECT_EQ(calls, 1);
    check(result, block);
    ASSERT_TRUE(result.tune.has_value());
    EXPECT_EQ(result.tune->loss_before, 2);
    EXPECT_EQ(seconds_.tune, 3);
    for (const LinearSpec& linear : spec().family->linears) {
      const at::Tensor changed =
          block.weight(linear.suffix).ne(untuned.weight(linear.suffix)).nonzero();
      EXPECT_EQ(changed.size(0), 1) << linear.suffix;
    }
    for (const auto& [suffix, norm] : original().norms) {
      EXPECT_TRUE(block.norms.at(suffix).equal(norm.add(0.25))) << suffix;
    }
  }
}

TEST_F(BlockQuantizerTest, RaisedDampingIsAWarning) {
  const BlockQuantizer quantizer(spec(), config_of("gptq"), {}, kCpu, &seconds_);
  // X^T X with an eigenvalue of -2 % of its mean diagonal.
  const GroupStats stats = [&](const Block& block, const std::string& group) {
    for (const LinearSpec& linear : spec().family->linears) {
      if (linear.group != group) continue;
      const int64_t width = block.weight(linear.suffix).size(1);
      CalibrationStats sums = {width, 100, std::vector<float>(static_cast<size_t>(width * width))};
      for (int64_t i = 0; i < width; ++i) sums.xtx[static_cast<size_t>(i * width + i)] = 1;
      sums.xtx[1] = sums.xtx[static_cast<size_t>(width)] = 1.02f;
      return sums;
    }
    return CalibrationStats();
  };
  Block block = original();
  const QuantizedBlock result = quantizer.quantize(1, {}, stats, {}, &block);
  ASSERT_EQ(result.warnings.size(), spec().groups().size());
  EXPECT_EQ(result.warnings[0].find("block 1, " + spec().groups()[0] + ": damping raised 1 times"),
            0u)
      << result.warnings[0];
  EXPECT_GT(result.layers[0].report.damping, 0.0015);
}

}  // namespace
}  // namespace billm
