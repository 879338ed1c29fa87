// X^T X against sums in double, and its independence of threads and chunk size.
#include "billm/calibrate/collect.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
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
    return collect_stats(spec(), block_, rope_, TensorSequences(hidden_),
                         {.threads = threads, .input_bytes = bytes});
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
    forward_block(spec(), block_, sequence, rope_,
                  [&](const std::string& group, const at::Tensor& input) {
                    const size_t width = static_cast<size_t>(input.size(1));
                    std::vector<double>& sum = expected[group];
                    sum.resize(width * width);
                    tokens[group] += input.size(0);
                    const float* x = input.const_data_ptr<float>();
                    for (int64_t t = 0; t < input.size(0); ++t, x += width) {
                      for (size_t i = 0; i < width; ++i) {
                        for (size_t j = 0; j < width; ++j) {
                          sum[i * width + j] += static_cast<double>(x[i]) * x[j];
                        }
                      }
                    }
                    return true;
                  });
  }
  CollectSeconds seconds;
  const auto stats =
      collect_stats(spec(), block_, rope_, TensorSequences(hidden_), {.threads = 2}, &seconds);
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
    add_stats(collect_stats(spec(), block_, rope_, TensorSequences(own), {.parts = {range.count}}),
              2, &total);
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

// What a GPU does, on ATen's CPU device: the same sums but for rounding, by itself or with others.
TEST_F(Collect, SumsOnTheDeviceAgree) {
  const auto expected = collect(1, int64_t{1} << 30);
  PartsInOrder exchange;
  for (SumExchange* to :
       {static_cast<SumExchange*>(nullptr), static_cast<SumExchange*>(&exchange)}) {
    for (const int64_t bytes : {int64_t{1}, int64_t{1} << 30}) {
      CollectSeconds seconds;
      const auto stats =
          collect_stats(spec(), block_, rope_, TensorSequences(hidden_),
                        {.input_bytes = bytes, .sums_on_device = true, .exchange = to}, &seconds);
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
  one.add_input("group", all.narrow(0, 0, kTokens));
  other.add_input("group", all.narrow(0, kTokens, kTokens));
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
