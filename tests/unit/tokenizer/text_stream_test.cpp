// Streamed text: together it is what decode() makes of all ids, in pieces of whole characters.
#include "billm/tokenizer/text_stream.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "billm/base/utf8.h"
#include "support/environment.h"

namespace billm {
namespace {

std::vector<std::filesystem::path> tokenizers(const std::string& data, const std::string& demo) {
  const std::filesystem::path folder = std::filesystem::path(data) / "tokenizers";
  return {demo, folder / "gpt2", folder / "dolma2", folder / "gpt-neox-olmo"};
}

struct Streamed {
  std::string text;
  size_t pieces = 0;
};

Streamed stream(const Tokenizer& tokenizer, std::span<const int32_t> ids,
                std::span<const int32_t> before = {}) {
  TextStream stream(tokenizer, before);
  Streamed result;
  const auto take = [&](const std::string& piece) {
    EXPECT_EQ(find_invalid_utf8(piece), std::string::npos);
    result.text += piece;
    result.pieces += piece.empty() ? 0 : 1;
  };
  for (const int32_t id : ids) take(stream.push(id));
  take(stream.finish());
  return result;
}

void check(const Tokenizer& tokenizer, int64_t vocab) {
  std::mt19937 random(7);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<int32_t> ids(30);
    // Low ids are bytes and special tokens in most vocabularies.
    const int64_t range = trial % 2 == 0 ? 300 : vocab + 10;
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<uint64_t>(range));
    ASSERT_EQ(stream(tokenizer, ids).text, tokenizer.decode(ids, true)) << trial;
    // Behind a text that is whole.
    const std::vector<int32_t> before = tokenizer.encode("It was", true);
    std::vector<int32_t> all = before;
    all.insert(all.end(), ids.begin(), ids.end());
    ASSERT_EQ(tokenizer.decode(before, true) + stream(tokenizer, ids, before).text,
              tokenizer.decode(all, true))
        << trial;
  }
  const std::string text =
      "H\u00e9llo  w\u00f6rld, \U0001F468\u200D\U0001F469\u200D\U0001F467 \u4f60\u597d\n\n  "
      "\u0928\u092e\u0938\u094d\u0924\u0947\t\u00a0 \u2028x = {1}; \u00ff\uffff.";
  const std::vector<int32_t> ids = tokenizer.encode(text, false);
  const Streamed streamed = stream(tokenizer, ids);
  EXPECT_EQ(streamed.text, tokenizer.decode(ids, true));
  EXPECT_GT(streamed.pieces, 15u);
}

TEST(TextStream, EqualsDecodeOfByteLevelTokenizers) {
  BILLM_NEED(data, "BILLM_DATA_DIR");
  BILLM_NEED(demo, "BILLM_DEMO_MODEL");
  for (const auto& directory : tokenizers(data, demo)) {
    SCOPED_TRACE(directory.filename());
    const Tokenizer tokenizer = Tokenizer::from_directory(directory);
    check(tokenizer, tokenizer.vocab_size());
  }
}

TEST(TextStream, EqualsDecodeOfSentencePiece) {
  BILLM_NEED(data, "BILLM_DATA_DIR");
  for (const char* version : {"v1", "v3"}) {
    SCOPED_TRACE(version);
    const test::TemporaryDirectory directory;
    std::filesystem::copy(std::filesystem::path(data) / "tokenizers/mistral" /
                              (std::string("tokenizer.model.") + version),
                          directory.path() / "tokenizer.model");
    const Tokenizer tokenizer = Tokenizer::from_directory(directory.path());
    check(tokenizer, tokenizer.vocab_size());
    // Bytes in tokens of their own: a run of them is one text or none.
    const std::vector<int32_t> bytes = tokenizer.encode("a\u4dffb\n", false);
    EXPECT_EQ(stream(tokenizer, bytes).text, "a\u4dffb\n");
    EXPECT_EQ(tokenizer.kind(1), TokenKind::kNoText);  // BOS
  }
}

TEST(TextStream, ContinuesWithTheSpaceThatSentencePieceDropsAtTheStart) {
  BILLM_NEED(data, "BILLM_DATA_DIR");
  const test::TemporaryDirectory directory;
  std::filesystem::copy(std::filesystem::path(data) / "tokenizers/mistral/tokenizer.model.v1",
                        directory.path() / "tokenizer.model");
  const Tokenizer tokenizer = Tokenizer::from_directory(directory.path());
  const std::vector<int32_t> before = tokenizer.encode("The capital is", true);
  const std::vector<int32_t> all = tokenizer.encode("The capital is Paris", true);
  const std::vector<int32_t> ids(all.begin() + static_cast<long>(before.size()), all.end());
  EXPECT_EQ(stream(tokenizer, ids, before).text, " Paris");
  EXPECT_EQ(stream(tokenizer, ids).text, "Paris");
}

// A character comes as soon as its last byte is there, and not before.
TEST(TextStream, HoldsBackPartsOfCharacters) {
  BILLM_NEED(data, "BILLM_DATA_DIR");
  const Tokenizer tokenizer =
      Tokenizer::from_directory(std::filesystem::path(data) / "tokenizers/gpt2");
  const std::vector<int32_t> ids = tokenizer.encode("\U0001F9FF", false);  // one byte a token
  ASSERT_GT(ids.size(), 2u);
  TextStream stream(tokenizer);
  for (size_t i = 0; i + 1 < ids.size(); ++i) EXPECT_EQ(stream.push(ids[i]), "");
  EXPECT_EQ(stream.push(ids.back()), "\U0001F9FF");
  EXPECT_EQ(stream.push(ids[0]), "");
  EXPECT_EQ(stream.finish(), "\ufffd");
  EXPECT_EQ(stream.finish(), "");
}

}  // namespace
}  // namespace billm
