// Perplexity and KL: against transformers, and independent of threads and batches.
#include "billm/eval/perplexity.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "billm/base/error.h"
#include "billm/checkpoint/npy.h"
#include "support/environment.h"
#include "support/tiny_checkpoint.h"

namespace billm {
namespace {

TokenMatrix counting_windows(int64_t rows, int64_t cols, int32_t vocab) {
  TokenMatrix windows{rows, cols, {}};
  for (int64_t i = 0; i < rows * cols; ++i) {
    windows.values.push_back(static_cast<int32_t>(i * i * 31 % vocab));
  }
  return windows;
}

// log p of every token at row `row` of logits [rows, vocab], in double.
std::vector<double> log_softmax(const std::vector<float>& logits, int64_t row, int64_t vocab) {
  const float* x = logits.data() + row * vocab;
  const double largest = *std::max_element(x, x + vocab);
  double sum = 0;
  for (int64_t i = 0; i < vocab; ++i) sum += std::exp(x[i] - largest);
  std::vector<double> result(static_cast<size_t>(vocab));
  for (int64_t i = 0; i < vocab; ++i) result[i] = x[i] - largest - std::log(sum);
  return result;
}

void expect_same_bits(const EvalResult& a, const EvalResult& b) {
  EXPECT_EQ(a.nll_sum, b.nll_sum);
  EXPECT_EQ(a.window_nll, b.window_nll);
  EXPECT_EQ(a.ppl, b.ppl);
  EXPECT_EQ(a.predictions, b.predictions);
  EXPECT_EQ(a.kl_mean, b.kl_mean);
}

TEST(Perplexity, SameBitsForAnyThreadsAndBatches) {
  const test::TemporaryDirectory directory;
  test::TinyLlama options;
  test::write_tiny_llama(directory.path() / "a", options);
  options.seed = 2;
  test::write_tiny_llama(directory.path() / "b", options);
  EvalRequest request{.model = directory.path() / "b", .windows = counting_windows(5, 40, 80)};
  request.device = "cpu";
  request.kl_model = directory.path() / "a";
  const EvalResult expected = evaluate(request);
  EXPECT_EQ(expected.predictions, 5 * 39);
  EXPECT_GT(expected.ppl, 1);
  EXPECT_GT(*expected.kl_mean, 0);
  EXPECT_GT(expected.peak_rss_bytes, 0);
  EXPECT_GT(expected.seconds, 0);
  for (const int threads : {1, 2, 3}) {
    for (const int64_t bytes : {int64_t{1}, int64_t{50000}, int64_t{1} << 28}) {
      request.threads = threads;
      request.hidden_bytes = bytes;
      expect_same_bits(evaluate(request), expected);
    }
  }
}

TEST(Perplexity, WindowSumsAreThoseOfEachWindowAlone) {
  const test::TemporaryDirectory directory;
  test::write_tiny_llama(directory.path());
  EvalRequest request{.model = directory.path(), .windows = counting_windows(3, 30, 80)};
  request.device = "cpu";
  const TokenMatrix windows = request.windows;
  const EvalResult all = evaluate(request);
  ASSERT_EQ(all.window_nll.size(), 3u);
  double sum = 0;
  for (int64_t w = 0; w < 3; ++w) {
    const std::span<const int32_t> tokens = windows.row(w);
    request.windows = TokenMatrix{1, 30, {tokens.begin(), tokens.end()}};
    const EvalResult one = evaluate(request);
    EXPECT_EQ(all.window_nll[static_cast<size_t>(w)], one.nll_sum) << w;
    sum += one.nll_sum;
  }
  EXPECT_EQ(all.nll_sum, sum);
  EXPECT_NE(all.window_nll[0], all.window_nll[1]);  // an order to be wrong about
}

TEST(Perplexity, AModelDoesNotDivergeFromItself) {
  const test::TemporaryDirectory directory;
  test::write_tiny_llama(directory.path());
  EvalRequest request{.model = directory.path(), .windows = counting_windows(2, 30, 80)};
  request.kl_model = directory.path();
  EXPECT_EQ(evaluate(request).kl_mean, 0.0);
  request.kl_model.reset();
  EXPECT_FALSE(evaluate(request).kl_mean.has_value());
}

TEST(Perplexity, BadRequests) {
  const test::TemporaryDirectory directory;
  test::TinyLlama options;
  test::write_tiny_llama(directory.path() / "a", options);
  options.vocab = 81;
  test::write_tiny_llama(directory.path() / "b", options);
  const auto message_of = [](const EvalRequest& request, ErrorCode code) -> std::string {
    try {
      evaluate(request);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code);
      return error.message();
    }
    return "no error";
  };
  EvalRequest request{.model = directory.path() / "a", .windows = counting_windows(3, 1, 80)};
  EXPECT_EQ(message_of(request, ErrorCode::kBadInput),
            "windows: expected at least one of at least 2 tokens, got [3, 1]");
  request.windows = counting_windows(0, 5, 80);
  EXPECT_NE(message_of(request, ErrorCode::kBadInput), "no error");
  request.windows = counting_windows(1, 20, 80);
  request.windows.values[7] = 80;
  EXPECT_NE(message_of(request, ErrorCode::kBadInput).find("outside the vocabulary of 80"),
            std::string::npos);
  request.windows = counting_windows(1, 20, 80);
  request.kl_model = directory.path() / "b";
  EXPECT_NE(message_of(request, ErrorCode::kBadInput).find("vocab_size: expected 81"),
            std::string::npos);
  request.model = directory.path() / "missing";
  EXPECT_NE(message_of(request, ErrorCode::kBadInput), "no error");
}

TEST(Perplexity, LossThatIsNotFinite) {
  const test::TemporaryDirectory directory;
  test::TinyLlama options;
  // Finite weights whose activations overflow fp32: 6e4^3 per step of the MLP, squared in the norm.
  options.blocks = 6;
  options.change = [](const std::string& name, std::vector<int64_t>&,
                      std::vector<uint16_t>& halves) {
    if (name.find("norm") != std::string::npos || name.find("mlp") != std::string::npos) {
      std::fill(halves.begin(), halves.end(), uint16_t{0x7b00});
    }
    return true;
  };
  test::write_tiny_llama(directory.path(), options);
  EvalRequest request{.model = directory.path(), .windows = counting_windows(1, 20, 80)};
  try {
    evaluate(request);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kFailure);
    EXPECT_NE(error.message().find("not finite"), std::string::npos);
  }
}

TEST(Perplexity, AgreesWithTransformersOnTinyModels) {
  BILLM_NEED(python, "BILLM_PYTHON");
  const test::TinyModels models(python, {"gqa", "mistral"});
  const auto model = models.path("gqa"), original = models.path("mistral");
  const TokenMatrix windows = read_npy(model / "tokens.npy");
  const std::vector<float> logits_q = test::read_floats(model / "logits.f32");
  const std::vector<float> logits_p = test::read_floats(original / "logits.f32");
  const int64_t vocab = static_cast<int64_t>(logits_q.size()) / (windows.rows * windows.cols);
  double nll = 0, kl = 0;
  for (int64_t w = 0; w < windows.rows; ++w) {
    for (int64_t t = 0; t + 1 < windows.cols; ++t) {
      const auto q = log_softmax(logits_q, w * windows.cols + t, vocab);
      const auto p = log_softmax(logits_p, w * windows.cols + t, vocab);
      nll -= q[static_cast<size_t>(windows.row(w)[t + 1])];
      for (size_t i = 0; i < q.size(); ++i) kl += std::exp(p[i]) * (p[i] - q[i]);
    }
  }
  const EvalResult actual = evaluate({.model = model, .windows = windows, .kl_model = original});
  EXPECT_EQ(actual.predictions, windows.rows * (windows.cols - 1));
  EXPECT_NEAR(actual.nll_sum, nll, 1e-5 * nll);
  kl /= static_cast<double>(actual.predictions);
  EXPECT_NEAR(*actual.kl_mean, kl, 1e-5 * kl);
}

// 35 seconds on two cores: run by name, or with BILLM_SLOW_TESTS=1.
TEST(Perplexity, SlowDemoModelOnWikitext) {
  if (test::environment("BILLM_SLOW_TESTS") != "1") GTEST_SKIP() << "BILLM_SLOW_TESTS is not 1";
  BILLM_NEED(model, "BILLM_DEMO_MODEL");
  BILLM_NEED(data, "BILLM_DATA_DIR");
  TokenMatrix windows = read_npy(std::filesystem::path(data) / "golden" / "peer_eval_tokens.npy");
  windows.rows = 2;
  windows.values.resize(static_cast<size_t>(windows.rows * windows.cols));
  const EvalResult result = evaluate({.model = model, .windows = windows, .threads = 0});
  EXPECT_EQ(result.predictions, 2 * 2047);
  EXPECT_NEAR(result.ppl, 19.0, 0.05);
}

}  // namespace
}  // namespace billm
