// Logits with cached keys and values against those of one pass without, in every family; and that
// a full context is an error.
#include "billm/generate/generator.h"

#include <gtest/gtest.h>

#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "billm/base/error.h"
#include "billm/checkpoint/config.h"
#include "billm/checkpoint/npy.h"
#include "billm/model/model.h"
#include "support/compare.h"
#include "support/environment.h"
#include "support/fake_capture.h"
#include "support/packed_testing.h"
#include "support/tiny_checkpoint.h"

namespace billm {
namespace {

GeneratorRequest request_of(const std::filesystem::path& model, int64_t context, int threads = 2) {
  GeneratorRequest request;
  request.model = model;
  request.context = context;
  request.threads = threads;
  request.device = "cpu";
  return request;
}

Generator make(const std::filesystem::path& model, int64_t context, int threads = 2) {
  return Generator(request_of(model, context, threads));
}

// Sizes of consecutive pieces of `length` tokens.
using Split = std::vector<int64_t>;

std::vector<Split> splits(int64_t length, std::mt19937& random) {
  std::vector<Split> result = {{length}, {1, length - 1}, {length - 1, 1}};
  result.push_back(Split(static_cast<size_t>(length), 1));
  for (int i = 0; i < 3; ++i) {
    Split split;
    for (int64_t left = length; left > 0; left -= split.back()) {
      split.push_back(1 + static_cast<int64_t>(random() % static_cast<uint64_t>(left)));
    }
    result.push_back(split);
  }
  return result;
}

// The logits of transformers' one pass stand in logits.f32 (make_tiny_model.py). With `counts`
// single tokens are replays of graphs.
void expect_agreement(const std::filesystem::path& path, test::CaptureCounts* counts) {
  const TokenMatrix tokens = read_npy(path / "tokens.npy");
  const std::vector<float> expected = test::read_floats(path / "logits.f32");
  const double scale = test::root_mean_square(expected);
  GeneratorRequest request = request_of(path, tokens.cols);
  if (counts != nullptr) request.make_capture = test::fake_capture(*counts);
  Generator generator(request);
  const auto vocab = static_cast<size_t>(generator.vocab());
  // Tokens keep the angles that they had when they were added: only one piece is one pass.
  const ModelConfig config = read_config(path / "config.json");
  const bool one_piece =
      config.rope_scaling.type == "dynamic" && tokens.cols > config.max_position_embeddings;
  std::mt19937 random(3);
  for (int64_t row = 0; row < tokens.rows; ++row) {
    for (const Split& split : splits(tokens.cols, random)) {
      if (one_piece && split.size() > 1) continue;
      generator.truncate(0);
      for (const int64_t size : split) {
        const int64_t start = generator.length();
        const std::span<const float> actual = generator.append(
            tokens.row(row).subspan(static_cast<size_t>(start), static_cast<size_t>(size)));
        ASSERT_EQ(generator.length(), start + size);
        const size_t at = static_cast<size_t>(row * tokens.cols + start + size - 1) * vocab;
        ASSERT_TRUE(test::close(actual, std::span(expected).subspan(at, vocab),
                                {.absolute = 1e-4 * scale, .relative = 1e-4}))
            << "row " << row << ", " << size << " tokens from " << start;
      }
    }
  }
}

TEST(Generator, AnySplitGivesTheLogitsOfOnePassInEveryFamily) {
  BILLM_NEED(python, "BILLM_PYTHON");
  const test::TinyModels models(python);
  for (const std::string& name : models.names()) {
    SCOPED_TRACE(name);
    expect_agreement(models.path(name), nullptr);
    test::CaptureCounts counts;
    expect_agreement(models.path(name), &counts);
    const ModelConfig config = read_config(models.path(name) / "config.json");
    // A rope that depends on the length is not what a graph was captured with.
    if (config.rope_scaling.type != "dynamic") {
      EXPECT_EQ(counts.captures, 1);
      EXPECT_GT(counts.replays, 10);
    }
    EXPECT_EQ(counts.live, 0);
  }
  EXPECT_GT(models.names().size(), 40u);
}

std::vector<int32_t> random_tokens(size_t count, int32_t vocab) {
  std::vector<int32_t> tokens(count);
  std::mt19937 random(5);
  for (int32_t& token : tokens) {
    token = static_cast<int32_t>(random() % static_cast<uint32_t>(vocab));
  }
  return tokens;
}

TEST(Generator, MoreTokensThanOneChunkAndAnyNumberOfThreads) {
  const test::TemporaryDirectory directory;
  test::TinyLlama options;
  options.vocab = 9001;  // more than one piece of the head
  test::write_tiny_llama(directory.path(), options);
  const std::vector<int32_t> tokens = random_tokens(kPrefillChunk + 30, 9001);
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 3}) {
    Generator generator = make(directory.path(), 2000, threads);
    const std::span<const float> logits = generator.append(tokens);
    results.emplace_back(logits.begin(), logits.end());
  }
  EXPECT_EQ(results[0], results[1]);
  Generator generator = make(directory.path(), 2000);
  generator.append(std::span(tokens).first(kPrefillChunk - 7));
  generator.append(std::span(tokens).subspan(kPrefillChunk - 7, 36));
  EXPECT_TRUE(test::close(generator.append(std::span(tokens).last(1)), results[0],
                          {.absolute = 1e-4 * test::root_mean_square(results[0])}));
}

// Graphs of 256, 512 and all slots: each captured when it is first needed, and again of use after
// the sequence was cut; the same logits as without.
TEST(Generator, GraphsOfEverySpan) {
  const test::TemporaryDirectory directory;
  test::write_tiny_llama(directory.path());
  test::CaptureCounts counts;
  GeneratorRequest request = request_of(directory.path(), 600);
  Generator plain(request);
  request.make_capture = test::fake_capture(counts);
  Generator graphs(request);
  request.graphs = false;
  Generator without(request);
  const std::vector<int32_t> tokens = random_tokens(600, 80);
  const auto both = [&](size_t first, size_t count) {
    const auto part = std::span(tokens).subspan(first, count);
    const auto logits = graphs.append(part);
    const std::vector<float> actual(logits.begin(), logits.end());
    const auto expected = plain.append(part);
    ASSERT_TRUE(
        test::close(actual, expected, {.absolute = 1e-4 * test::root_mean_square(expected)}))
        << first;
  };
  const auto go_to = [&](size_t length) {
    const auto there = static_cast<size_t>(plain.length());
    if (length < there) {
      plain.truncate(static_cast<int64_t>(length));
      graphs.truncate(static_cast<int64_t>(length));
    } else if (length > there) {
      both(there, length - there);
    }
  };
  struct Step {
    size_t position;
    int captures;
  };
  int replays = 0;
  for (const Step& step : std::vector<Step>{{0, 1},
                                            {1, 1},
                                            {254, 1},
                                            {255, 1},
                                            {256, 2},
                                            {257, 2},
                                            {511, 2},
                                            {512, 3},
                                            {599, 3},
                                            {3, 3},
                                            {300, 3},
                                            {598, 3},
                                            {0, 3}}) {
    SCOPED_TRACE(step.position);
    go_to(step.position);
    ASSERT_NO_FATAL_FAILURE(both(step.position, 1));
    EXPECT_EQ(counts.captures, step.captures);
    EXPECT_EQ(graphs.length(), static_cast<int64_t>(step.position) + 1);
    EXPECT_GE(counts.replays, ++replays);
  }
  const int before = counts.replays;
  without.append(std::span(tokens).first(1));
  EXPECT_EQ(counts.replays, before);
  // What a call refuses leaves the sequence and the graphs as they are.
  EXPECT_THROW(graphs.append(std::vector<int32_t>{80}), Error);
  EXPECT_EQ(graphs.length(), 1);
  ASSERT_NO_FATAL_FAILURE(both(1, 1));
}

TEST(Generator, GoesOnWhereACaptureFails) {
  const test::TemporaryDirectory directory;
  test::write_tiny_llama(directory.path());
  test::CaptureCounts counts;
  counts.fails = true;
  GeneratorRequest request = request_of(directory.path(), 20);
  Generator plain(request);
  request.make_capture = test::fake_capture(counts);
  testing::internal::CaptureStderr();
  Generator generator(request);
  const std::vector<int32_t> tokens = random_tokens(20, 80);
  for (size_t i = 0; i < 20; ++i) {
    const auto expected = plain.append(std::span(tokens).subspan(i, 1));
    const auto actual = generator.append(std::span(tokens).subspan(i, 1));
    EXPECT_TRUE(test::close(actual, expected, {}));
  }
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(said,
            "billm: warning: no CUDA graphs, tokens are decoded more slowly: the stream was broken "
            "off\n");
  EXPECT_EQ(counts.replays, 0);
}

TEST(Generator, WhatWasTruncatedIsForgotten) {
  const test::TemporaryDirectory directory;
  test::write_tiny_llama(directory.path());
  Generator generator = make(directory.path(), 20);
  const std::vector<int32_t> tokens = random_tokens(20, 80), others = random_tokens(7, 79);
  generator.append(tokens);
  generator.truncate(5);
  EXPECT_EQ(generator.length(), 5);
  const auto again = generator.append(others);
  const std::vector<float> actual(again.begin(), again.end());
  generator.truncate(0);
  std::vector<int32_t> all(tokens.begin(), tokens.begin() + 5);
  all.insert(all.end(), others.begin(), others.end());
  const auto expected = generator.append(all);
  EXPECT_TRUE(test::close(actual, expected, {.absolute = 1e-4 * test::root_mean_square(expected)}));
  EXPECT_THROW(generator.truncate(13), Error);
  EXPECT_THROW(generator.truncate(-1), Error);
}

// Linears that are not run packed have the threads that were asked for, too.
TEST(Generator, ThreadsOfLinearsInFp32) {
  const test::TemporaryDirectory directory;
  const auto dense = directory.path() / "dense", packed = directory.path() / "packed";
  test::write_tiny_llama(dense);
  write_packed(dense, packed, some_codes(96, 64, OffsetKind::kRegion));  // cannot be run packed
  const std::vector<int32_t> tokens = random_tokens(40, 80);
  for (const auto& model : {dense, packed}) {
    std::vector<std::vector<float>> results;
    for (const int threads : {1, 3}) {
      const int before = test::running_threads();
      Generator generator = make(model, 50, threads);
      EXPECT_EQ(test::running_threads(), before + threads - 1) << model;
      generator.append(std::span(tokens).first(39));
      const std::span<const float> logits = generator.append(std::span(tokens).last(1));
      results.emplace_back(logits.begin(), logits.end());
    }
    EXPECT_EQ(results[0], results[1]) << model;
  }
}

TEST(Generator, StoredBitsAreThoseOfThePlanesWhichAreNotRead) {
  const test::TemporaryDirectory directory;
  const auto dense = directory.path() / "dense", packed = directory.path() / "packed";
  test::TinyLlama options;
  options.hidden = 256;
  options.intermediate = 8192;
  options.head_dim = 64;
  test::write_tiny_llama(dense, options);
  const RegionCodes linear = some_codes(8192, 256);
  write_packed(dense, packed, linear);
  const Generator generator = make(packed, 10);
  // The other linears count as what they are, in fp16.
  const auto weights = static_cast<double>(quantized_weights(Model(packed, 1).spec()));
  const double bits = 8.0 * static_cast<double>(pack(linear).bytes()) +
                      16.0 * (weights - static_cast<double>(linear.shape.rows * linear.shape.cols));
  EXPECT_DOUBLE_EQ(generator.stored_bits(), bits / weights);
  ASSERT_GT(pack(linear).bytes(), 512 << 10);
  // Headers, and ends of tensors that share a page with another.
  EXPECT_LT(test::resident_bytes(packed / "model.safetensors"), 256 << 10);
  EXPECT_EQ(make(dense, 10).stored_bits(), 0);
}

std::string message_of(const std::function<void()>& body, ErrorCode code) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.message();
    return error.message() + " (" + error.hint() + ")";
  }
  return "no error";
}

TEST(Generator, RefusesWhatDoesNotFit) {
  const test::TemporaryDirectory directory;
  test::write_tiny_llama(directory.path());
  Generator generator = make(directory.path(), 8);
  EXPECT_EQ(generator.context(), 8);
  const std::vector<int32_t> tokens = random_tokens(9, 80);
  const auto before = generator.append(std::span(tokens).first(6));
  const std::vector<float> logits(before.begin(), before.end());
  EXPECT_EQ(message_of([&] { generator.append(std::span(tokens).first(3)); }, ErrorCode::kFailure),
            "the context is full: 8 tokens, 6 of them used, 3 more to add (use a larger --ctx-size "
            "or a shorter text)");
  EXPECT_THROW(generator.append({}), Error);
  EXPECT_NE(message_of([&] { generator.append(std::vector<int32_t>{80}); }, ErrorCode::kBadInput)
                .find("outside the vocabulary"),
            std::string::npos);
  EXPECT_EQ(generator.length(), 6);
  generator.truncate(5);
  EXPECT_TRUE(test::close(generator.append(std::span(tokens).subspan(5, 1)), logits,
                          {.absolute = 1e-4 * test::root_mean_square(logits)}));
  EXPECT_NE(message_of([&] { make(directory.path(), 0); }, ErrorCode::kUsage), "no error");
  // 512 bytes a token.
  const auto message =
      message_of([&] { make(directory.path(), int64_t{1} << 40); }, ErrorCode::kFailure);
  EXPECT_TRUE(
      message.starts_with("context of 1099511627776 tokens: keys and values would take "
                          "562950.0 GB, "))
      << message;
  EXPECT_TRUE(message.ends_with(" of memory are free (make --ctx-size smaller)")) << message;
}

}  // namespace
}  // namespace billm
