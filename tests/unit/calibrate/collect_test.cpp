// X^T X against sums in double, and its independence of threads and chunk size.
#include "billm/calibrate/collect.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "billm/base/error.h"
#include "billm/model/model.h"
#include "billm/model/runtime.h"
#include "src/calibrate/device_sums.h"
#include "support/compare.h"
#include "support/environment.h"
#include "support/random_layer.h"
#include "support/tiny_checkpoint.h"

namespace billm {
namespace {

const c10::Device kCpu(c10::kCPU);

// A model whose widths are several tiles of X^T X, the last one shorter, and sequences of different
// lengths.
class Collect : public testing::Test {
 protected:
  void SetUp() override {
    init_torch();
    test::TinyLlama options;
    options.hidden = 160;
    options.intermediate = 300;
    options.heads = 5;
    options.kv_heads = 1;
    options.head_dim = 26;
    test::write_tiny_llama(directory_.path(), options);
    model_.emplace(directory_.path(), 1);
    for (const int64_t length : {40, 57, 33, 1}) {
      std::vector<int32_t> tokens(static_cast<size_t>(length));
      for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * i * 7 % 80);
      hidden_.push_back(Embedding(model_->weights(), spec())(tokens));
    }
    rope_ = make_rope(spec(), 57, kCpu);
    block_ = load_block(model_->weights(), spec(), 0, 1, kCpu);
  }

  const ModelSpec& spec() const { return model_->spec(); }
  std::map<std::string, CalibrationStats> collect(int threads, int64_t bytes) const {
    return collect(hidden_, {.threads = threads, .input_bytes = bytes});
  }
  std::map<std::string, CalibrationStats> collect(const std::vector<at::Tensor>& hidden,
                                                  const CollectOptions& options,
                                                  CollectSeconds* seconds = nullptr) const {
    const TensorSequences sequences(hidden);
    BlockWalk walk(spec(), sequences, false);
    return collect_stats(spec(), block_, rope_, walk, options, seconds);
  }
  // Calls take(point) before the linears of each group.
  template <typename Take>
  void visit(const Block& block, const at::Tensor& hidden, const Take& take) const {
    BlockPoint point = enter_block(spec(), block, hidden);
    for (const std::string& group : spec().groups()) {
      walk_block(spec(), block, rope_, group, &point);
      take(point);
    }
  }

  test::TemporaryDirectory directory_;
  std::optional<Model> model_;
  std::vector<at::Tensor> hidden_;
  Rope rope_;
  Block block_;
};

TEST_F(Collect, EqualsSumsInDouble) {
  const at::NoGradGuard no_grad;
  std::map<std::string, std::vector<double>> expected;
  std::map<std::string, int64_t> tokens;
  for (const at::Tensor& sequence : hidden_) {
    visit(block_, sequence, [&](const BlockPoint& point) {
      const size_t width = static_cast<size_t>(point.input.size(1));
      std::vector<double>& sum = expected[point.group];
      sum.resize(width * width);
      tokens[point.group] += point.input.size(0);
      const float* x = point.input.const_data_ptr<float>();
      for (int64_t t = 0; t < point.input.size(0); ++t, x += width) {
        for (size_t i = 0; i < width; ++i) {
          for (size_t j = 0; j < width; ++j) {
            sum[i * width + j] += static_cast<double>(x[i]) * x[j];
          }
        }
      }
    });
  }
  CollectSeconds seconds;
  const auto stats = collect(hidden_, {.threads = 2}, &seconds);
  EXPECT_GT(seconds.forward, 0);
  EXPECT_GT(seconds.hessian, 0);
  ASSERT_EQ(stats.size(), 4u);
  for (const auto& [group, sum] : stats) {
    SCOPED_TRACE(group);
    EXPECT_EQ(sum.tokens, 131);
    EXPECT_EQ(sum.tokens, tokens[group]);
    const std::vector<float> reference(expected[group].begin(), expected[group].end());
    ASSERT_EQ(static_cast<size_t>(sum.width * sum.width), reference.size());
    EXPECT_TRUE(
        test::close(sum.xtx, reference,
                    {.absolute = 1e-5 * test::root_mean_square(reference), .relative = 1e-5}));
    for (int64_t i = 0; i < sum.width; ++i) {
      for (int64_t j = 0; j < i; ++j) {
        ASSERT_EQ(sum.xtx[i * sum.width + j], sum.xtx[j * sum.width + i]);
      }
    }
  }
  EXPECT_EQ(stats.at("attention_in").width, 160);
  EXPECT_EQ(stats.at("attention_out").width, 130);
  EXPECT_EQ(stats.at("mlp_middle").width, 300);
}

// Hands the parts on, as the processes of a group do.
class PartsInOrder : public SumExchange {
 public:
  void add(StatsByGroup part) override {
    ++parts;
    if (!part.empty()) add_stats(std::move(part), 1, &total_);
  }
  StatsByGroup finish() override { return std::move(total_); }
  int parts = 0;

 private:
  StatsByGroup total_;
};

// The original's stream beside the present one, and tokens that count more: against sums in double;
// the same on the device, in parts and for any threads and chunks.
TEST_F(Collect, OriginalsAndHeavyTokens) {
  const at::NoGradGuard no_grad;
  const Block other = load_block(model_->weights(), spec(), 1, 1, kCpu);  // the "original"
  std::vector<at::Tensor> originals;
  for (const at::Tensor& state : hidden_) originals.push_back(state.mul(1.25).add(0.01));
  const TensorSequences present(hidden_), before(originals);
  const HeavyTokens heavy = {5, {{0, 7}, {}, {32}, {0}}};
  std::map<std::string, int64_t> tokens;
  std::map<std::string, std::array<std::vector<double>, 3>> expected;  // H, C, D'X
  for (size_t i = 0; i < hidden_.size(); ++i) {
    std::map<std::string, std::pair<at::Tensor, at::Tensor>> seen;
    const auto add = [](std::vector<double>* sum, const at::Tensor& left, const at::Tensor& right,
                        int64_t t) {
      const int64_t height = left.size(1), width = right.size(1);
      sum->resize(static_cast<size_t>(height * width));
      for (int64_t r = 0; r < height; ++r) {
        for (int64_t c = 0; c < width; ++c) {
          (*sum)[static_cast<size_t>(r * width + c)] +=
              double{left.const_data_ptr<float>()[t * height + r]} *
              right.const_data_ptr<float>()[t * width + c];
        }
      }
    };
    visit(block_, hidden_[i], [&](const BlockPoint& point) {
      seen[point.group] = {point.input.clone(), point.stream.clone()};
    });
    visit(other, originals[i], [&](const BlockPoint& point) {
      const std::string& group = point.group;
      const auto& [x, now] = seen.at(group);
      const at::Tensor drift = point.stream.sub(now);
      const bool writes = group == "attention_out" || group == "mlp_middle";
      for (int64_t t = 0; t < x.size(0); ++t) {
        const auto& here = heavy.positions[i];
        const bool counts = std::count(here.begin(), here.end(), t) > 0;
        for (int64_t n = 0; n < (counts ? heavy.times : 1); ++n) {
          ++tokens[group];
          add(&expected[group][0], x, x, t);
          add(&expected[group][1], point.input, x, t);
          if (writes) add(&expected[group][2], drift, x, t);
        }
      }
    });
  }
  PartsInOrder exchange;
  std::optional<StatsByGroup> first;
  for (const bool on_device : {false, true}) {
    for (SumExchange* to :
         {static_cast<SumExchange*>(nullptr), static_cast<SumExchange*>(&exchange)}) {
      for (const int threads : {1, 3}) {
        for (const int64_t bytes : {int64_t{1}, int64_t{1} << 30}) {
          BlockWalk walk(spec(), present, false), original_walk(spec(), before, false);
          const StatsByGroup stats =
              collect_stats(spec(), block_, rope_, walk,
                            {.threads = threads,
                             .input_bytes = bytes,
                             .sums_on_device = on_device,
                             .heavy = heavy,
                             .original = OriginalStream{other, original_walk},
                             .exchange = to});
          for (const auto& [group, sum] : stats) {
            SCOPED_TRACE(group + (on_device ? ", device" : ""));
            EXPECT_EQ(sum.tokens, tokens.at(group));
            const std::vector<float>* sums[] = {&sum.xtx, &sum.cross, &sum.drift};
            for (int i = 0; i < 3; ++i) {
              const std::vector<float> reference(expected[group][i].begin(),
                                                 expected[group][i].end());
              ASSERT_EQ(sums[i]->size(), reference.size()) << i;
              if (reference.empty()) continue;
              const double scale = test::root_mean_square(reference);
              EXPECT_TRUE(
                  test::close(*sums[i], reference, {.absolute = 1e-5 * scale, .relative = 1e-5}))
                  << i;
            }
            if (on_device || !first) continue;
            EXPECT_EQ(sum.xtx, first->at(group).xtx);
            EXPECT_EQ(sum.cross, first->at(group).cross);
            EXPECT_EQ(sum.drift, first->at(group).drift);
          }
          if (!first) first = stats;
        }
      }
    }
  }
}

// Sequences that count how often each is loaded.
class CountedSequences : public TensorSequences {
 public:
  explicit CountedSequences(const std::vector<at::Tensor>& tensors)
      : TensorSequences(tensors), loads(tensors.size()) {}
  at::Tensor load(int64_t i) const override {
    ++loads[static_cast<size_t>(i)];
    return TensorSequences::load(i);
  }
  mutable std::vector<int> loads;  // each by one thread at a time
};

// Group by group on a block whose linears are replaced behind it, then on to the next block: the
// same bits whether points are kept or every pass begins at the block's inputs; kept ones do not.
TEST_F(Collect, KeptPointsChangeNothing) {
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> before = [&] {
    std::vector<at::Tensor> copies;
    for (const at::Tensor& state : hidden_) copies.push_back(state.clone());
    return copies;
  }();
  std::vector<StatsByGroup> all;
  std::vector<std::vector<at::Tensor>> outputs;
  for (const bool keeps : {false, true}) {
    for (const int threads : {1, 3}) {
      const CountedSequences sequences(hidden_), originals(hidden_);
      BlockWalk walk(spec(), sequences, keeps), original_walk(spec(), originals, keeps);
      Block here = block_;
      StatsByGroup found;
      for (const std::string& group : spec().groups()) {
        CollectOptions options = {.threads = threads, .group = group};
        options.original.emplace(block_, original_walk);
        found.merge(collect_stats(spec(), here, rope_, walk, options));
        for (const LinearSpec& linear : spec().family->linears) {
          if (linear.group == group) {
            here.set_weight(linear.suffix, block_.weight(linear.suffix).mul(1.5));
          }
        }
      }
      outputs.emplace_back(hidden_.size());
      forward_each(spec(), here, rope_, walk, 0, sequences.count(), threads,
                   [&](int64_t i, at::Tensor state) {
                     outputs.back()[static_cast<size_t>(i)] = std::move(state);
                   });
      all.push_back(std::move(found));
      for (size_t i = 0; i < hidden_.size(); ++i) {
        EXPECT_EQ(sequences.loads[i], keeps ? 1 : 5);
        EXPECT_EQ(originals.loads[i], keeps ? 1 : 4);
        EXPECT_TRUE(hidden_[i].equal(before[i]));
        EXPECT_TRUE(outputs.back()[i].equal(forward_block(spec(), here, hidden_[i], rope_)));
      }
      walk.restart();  // from the inputs again
      EXPECT_EQ(walk.take(here, 1).group, "attention_in");
      EXPECT_EQ(sequences.loads[1], keeps ? 2 : 6);
    }
  }
  for (size_t run = 1; run < all.size(); ++run) {
    for (const auto& [group, sum] : all[0]) {
      EXPECT_EQ(all[run].at(group).xtx, sum.xtx) << group;
      EXPECT_EQ(all[run].at(group).cross, sum.cross) << group;
      EXPECT_EQ(all[run].at(group).drift, sum.drift) << group;
    }
  }
}

TEST(SumPart, PartsFollowEachOtherAndHoldAll) {
  for (int64_t sequences = 0; sequences < 40; ++sequences) {
    int64_t next = 0;
    for (int64_t part = 0; part < kSumParts; ++part) {
      const SumPart range = sum_part(sequences, part);
      EXPECT_EQ(range.first, next);
      EXPECT_GE(range.count, sequences / kSumParts);
      EXPECT_LE(range.count, sequences / kSumParts + 1);
      next += range.count;
    }
    EXPECT_EQ(next, sequences);
  }
}

// What the processes of a group do: the parts of a rank in turn, added in the order of the parts.
TEST_F(Collect, SameBitsForPartsSummedApart) {
  const auto expected = collect(1, int64_t{1} << 30);
  const TensorSequences all(hidden_);
  StatsByGroup total;
  for (int64_t part = 0; part < kSumParts; ++part) {
    const SumPart range = sum_part(all.count(), part);
    if (range.count == 0) continue;
    const std::vector<at::Tensor> own(hidden_.begin() + range.first,
                                      hidden_.begin() + range.first + range.count);
    add_stats(collect(own, {.parts = {range.count}}), 2, &total);
  }
  for (const auto& [group, sum] : expected) {
    const CalibrationStats& other = total.at(group);
    EXPECT_EQ(other.tokens, sum.tokens);
    for (int64_t i = 0; i < sum.width; ++i) {
      for (int64_t j = i; j < sum.width; ++j) {
        ASSERT_EQ(other.xtx[i * sum.width + j], sum.xtx[i * sum.width + j]) << group;
      }
    }
  }
}

TEST_F(Collect, SameBitsForAnyThreadsAndChunks) {
  const auto expected = collect(1, int64_t{1} << 30);
  for (const int threads : {1, 2, 5}) {
    for (const int64_t bytes : {int64_t{1}, int64_t{300000}, int64_t{1} << 30}) {
      const auto actual = collect(threads, bytes);
      ASSERT_EQ(actual.size(), expected.size());
      for (const auto& [group, sum] : expected) {
        const std::vector<float>& other = actual.at(group).xtx;
        ASSERT_EQ(other.size(), sum.xtx.size());
        EXPECT_EQ(std::memcmp(other.data(), sum.xtx.data(), other.size() * sizeof(float)), 0)
            << group << ", " << threads << " threads, " << bytes << " bytes";
        EXPECT_EQ(actual.at(group).tokens, sum.tokens);
      }
    }
  }
}

// What a GPU does, on ATen's CPU device: the same sums but for rounding, by itself or with others.
TEST_F(Collect, SumsOnTheDeviceAgree) {
  const auto expected = collect(1, int64_t{1} << 30);
  PartsInOrder exchange;
  for (SumExchange* to :
       {static_cast<SumExchange*>(nullptr), static_cast<SumExchange*>(&exchange)}) {
    for (const int64_t bytes : {int64_t{1}, int64_t{1} << 30}) {
      CollectSeconds seconds;
      const auto stats = collect(
          hidden_, {.input_bytes = bytes, .sums_on_device = true, .exchange = to}, &seconds);
      EXPECT_GT(seconds.forward, 0);
      EXPECT_GT(seconds.hessian, 0);
      ASSERT_EQ(stats.size(), expected.size());
      for (const auto& [group, sum] : expected) {
        SCOPED_TRACE(group);
        EXPECT_EQ(stats.at(group).tokens, sum.tokens);
        EXPECT_TRUE(
            test::close(stats.at(group).xtx, sum.xtx,
                        {.absolute = 1e-6 * test::root_mean_square(sum.xtx), .relative = 1e-5}));
      }
    }
  }
  EXPECT_EQ(exchange.parts, 2 * kSumParts);
}

TEST(DeviceSums, WidthOfSeveralTiles) {
  init_torch();
  const at::NoGradGuard no_grad;
  constexpr int64_t kWidth = 2100, kTokens = 7;
  const std::vector<float> x = test::random_normal(2 * kTokens * kWidth, 3);
  const at::Tensor all =
      at::from_blob(const_cast<float*>(x.data()), {2 * kTokens, kWidth}, at::kFloat);
  DeviceSums one, other;
  one.add_inputs("group", {{all.narrow(0, 0, kTokens)}, {}, {}, kTokens});
  other.add_inputs("group", {{all.narrow(0, kTokens, kTokens)}, {}, {}, kTokens});
  one.add(std::move(other));
  const StatsByGroup stats = one.take();
  const CalibrationStats& sum = stats.at("group");
  EXPECT_EQ(sum.width, kWidth);
  EXPECT_EQ(sum.tokens, 2 * kTokens);
  std::vector<float> actual, expected;
  for (int64_t i = 0; i < kWidth; i += 13) {  // the upper triangle
    for (int64_t j = i; j < kWidth; ++j) {
      double product = 0;
      for (int64_t t = 0; t < 2 * kTokens; ++t)
        product += double{x[t * kWidth + i]} * x[t * kWidth + j];
      actual.push_back(sum.xtx[i * kWidth + j]);
      expected.push_back(static_cast<float>(product));
    }
  }
  EXPECT_TRUE(test::close(actual, expected, {.absolute = 1e-5, .relative = 1e-5}));
  EXPECT_TRUE(one.take().empty());
}

TEST_F(Collect, AdvanceIsForwardOfEverySequence) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> one = hidden_, two = hidden_;
  advance(spec(), block_, rope_, one, 1);
  double seconds = 0;
  advance(spec(), block_, rope_, two, 2, &seconds);
  EXPECT_GT(seconds, 0);
  for (size_t i = 0; i < hidden_.size(); ++i) {
    EXPECT_TRUE(one[i].equal(forward_block(spec(), block_, hidden_[i], rope_)));
    EXPECT_TRUE(two[i].equal(one[i]));
  }
}

TEST_F(Collect, InputsThatAreNotFinite) {
  hidden_[1] = hidden_[1].clone();
  hidden_[1][20][3] = std::numeric_limits<float>::quiet_NaN();
  try {
    collect(2, 1);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kFailure);
    EXPECT_EQ(error.message(), "calibration: the inputs of attention_in are not finite");
  }
}

}  // namespace
}  // namespace billm
