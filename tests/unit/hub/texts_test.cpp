// Named texts: the row protocols, the places looked at, and the error when nothing is there.
#include "billm/hub/texts.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "billm/base/file.h"
#include "billm/base/json_text.h"
#include "billm/base/sha256.h"
#include "billm/tokenizer/tokenizer.h"
#include "support/environment.h"
#include "unit/checkpoint/testing.h"

namespace billm {
namespace {

// Sets variables for one test: names the places texts are looked for in, none by default.
class Texts : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"BILLM_DATA_DIR", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME",
                             "XDG_CACHE_HOME", "HOME", "HF_HUB_OFFLINE"}) {
      const char* value = std::getenv(name);
      saved_.emplace_back(name, value ? std::optional<std::string>(value) : std::nullopt);
      ::unsetenv(name);
    }
    ::setenv("HF_HUB_OFFLINE", "1", 1);  // downloads: tests/cli/hub_data_test.py
    ::setenv("HF_HUB_CACHE", (directory_.path() / "hub").c_str(), 1);
  }
  void TearDown() override {
    for (const auto& [name, value] : saved_) {
      if (value) {
        ::setenv(name.c_str(), value->c_str(), 1);
      } else {
        ::unsetenv(name.c_str());
      }
    }
  }
  std::string saved(const std::string& name) const {
    for (const auto& [known, value] : saved_) {
      if (known == name) return value.value_or("");
    }
    return "";
  }
  ScratchDirectory directory_;

 private:
  std::vector<std::pair<std::string, std::optional<std::string>>> saved_;
};

TEST_F(Texts, WikiTextRowsFollowTheProtocol) {
  directory_.write("wikitext2/wiki.test.raw", " \n = Title = \n \n Some text . \n\n last");
  const Text text = load_text("wikitext2", TextSplit::kTest, directory_.path());
  EXPECT_EQ(text.text, "\n\n = Title = \n\n\n\n\n Some text . \n\n\n\n\n\n last");
  EXPECT_EQ(text.sha256, sha256_hex(std::string_view(text.text)));
  EXPECT_EQ(text.path, directory_.path() / "wikitext2" / "wiki.test.raw");
  EXPECT_NE(text.description.find("test"), std::string::npos);
}

TEST_F(Texts, CalibrationTakesTrainElseValidation) {
  directory_.write("wikitext2/wiki.valid.raw", "v\n");
  const Text validation = load_text("wikitext2", TextSplit::kCalibration, directory_.path());
  EXPECT_EQ(validation.text, "v\n");
  EXPECT_NE(validation.description.find("validation"), std::string::npos);
  expect_bad_input([&] { load_text("wikitext2", TextSplit::kTrain, directory_.path()); },
                   {"wikitext2 train", "wiki.train.raw"});
  directory_.write("wikitext2/wiki.train.raw", "t\n");
  const Text train = load_text("wikitext2", TextSplit::kCalibration, directory_.path());
  EXPECT_EQ(train.text, "t\n");
  EXPECT_NE(train.description.find("train"), std::string::npos);
}

TEST_F(Texts, C4HalvesDoNotOverlap) {
  directory_.write("c4/b.jsonl", "{\"text\": \"four\"}\n{\"text\": \"five\", \"url\": 1}\n\n");
  directory_.write("c4/a.jsonl",
                   "{\"text\": \"one\"}\n{\"text\": \"two\\nlines\"}\n{\"text\": \"three\"}");
  const auto load = [&](TextSplit split) { return load_text("c4", split, directory_.path()).text; };
  EXPECT_EQ(load(TextSplit::kCalibration), "one\n\ntwo\nlines");
  EXPECT_EQ(load(TextSplit::kTest), "three\n\nfour\n\nfive");
  EXPECT_EQ(load(TextSplit::kTrain), load(TextSplit::kCalibration));
  EXPECT_EQ(load(TextSplit::kValidation), load(TextSplit::kTest));
}

TEST_F(Texts, C4RefusesBadLines) {
  for (const char* line : {"{\"text\": 3}", "{\"url\": \"\"}", "[]", "{", "\xff"}) {
    directory_.write("c4/a.jsonl", std::string("{\"text\": \"one\"}\n") + line + "\n");
    expect_bad_input([&] { load_text("c4", TextSplit::kTest, directory_.path()); },
                     {"a.jsonl: line 2"});
  }
  directory_.write("c4/a.jsonl", "{\"text\": \"one\"}\n");
  expect_bad_input([&] { load_text("c4", TextSplit::kTest, directory_.path()); },
                   {"at least 2 documents"});
}

TEST_F(Texts, AFileIsTakenAsItIs) {
  const auto path = directory_.write("my.txt", " \nline\r\n");
  const Text text = load_text(path.string(), TextSplit::kCalibration, "");
  EXPECT_EQ(text.text, " \nline\r\n");
  EXPECT_EQ(text.path, path);
  directory_.write("empty.txt", "");
  expect_bad_input(
      [&] { load_text((directory_.path() / "empty.txt").string(), TextSplit::kTest, ""); },
      {"empty.txt", "got none"});
  expect_bad_input([&] { load_text(directory_.path().string(), TextSplit::kTest, ""); }, {""});
  expect_bad_input([&] { load_text("wikitext", TextSplit::kTest, ""); },
                   {"wikitext", "expected wikitext2, c4, ptb, or a text file"});
}

TEST_F(Texts, PlacesAreSearchedInOrder) {
#ifdef BILLM_WITHOUT_PARQUET
  GTEST_SKIP() << "built without BILLM_PARQUET: one of the texts is a parquet file";
#endif
  const std::string old = "hub/datasets--wikitext/snapshots/abc/wikitext-2-raw-v1/";
  directory_.write(old + "test-00000-of-00001.parquet", "no parquet");
  directory_.write("env/wikitext2/wiki.test.raw", "env");
  directory_.write("arg/wikitext2/wiki.test.raw", "arg");
  directory_.write("empty/c4/x.jsonl", "");
  const auto load = [&](const char* data_dir) {
    const std::filesystem::path path = *data_dir ? directory_.path() / data_dir : "";
    return load_text("wikitext2", TextSplit::kTest, path).text;
  };
  // Found in the cache; what parquet files hold is tested in tests/cli/hub_data_test.py.
  expect_bad_input([&] { load(""); }, {"datasets--wikitext", "cannot read as parquet"});
  ::setenv("BILLM_DATA_DIR", (directory_.path() / "env").c_str(), 1);
  EXPECT_EQ(load(""), "env");
  EXPECT_EQ(load("arg"), "arg");
  EXPECT_EQ(load("empty"), "env");
  expect_bad_input([&] { load("nowhere"); }, {"--data-dir", "nowhere: expected a directory"});
  ::setenv("BILLM_DATA_DIR", "/nowhere/env", 1);
  expect_bad_input([&] { load(""); }, {"BILLM_DATA_DIR /nowhere/env: expected a directory"});
}

TEST_F(Texts, ErrorListsThePlaces) {
  const auto arg = directory_.path() / "arg", env = directory_.path() / "env";
  std::filesystem::create_directories(arg);
  std::filesystem::create_directories(env);
  ::setenv("BILLM_DATA_DIR", env.c_str(), 1);
  expect_bad_input(
      [&] { load_text("wikitext2", TextSplit::kTest, arg); },
      {(arg / "wikitext2/wiki.test.raw").string() + " (--data-dir)",
       (env / "wikitext2/wiki.test.raw").string() + " (BILLM_DATA_DIR)",
       "datasets--Salesforce--wikitext/snapshots/*/wikitext-2-raw-v1/test-", "HF_HUB_OFFLINE"});
  expect_bad_input([&] { load_text("c4", TextSplit::kTest, ""); },
                   {"/c4/*.jsonl", "en/c4-validation.00000-of-00008.json.gz"});
  expect_bad_input([&] { load_text("ptb", TextSplit::kTest, ""); },
                   {"penn_treebank/test/0000.parquet"});
}

// The validation file is what is evaluated: nothing may be calibrated on it.
TEST_F(Texts, C4IsNotCalibratedOnItsEvaluationFile) {
  directory_.write("hub/datasets--allenai--c4/snapshots/1/en/c4-validation.00000-of-00008.json.gz",
                   "");
  expect_bad_input([&] { load_text("c4", TextSplit::kCalibration, ""); }, {"c4 train: not found"});
}

// Known token counts of the protocol. 304,986 and 268,279 are those of the demo model's vocabulary
// with the GPT-2 pattern alone; with its own pre-tokenizer, which parts digits, 304,978 and
// 268,271.
TEST_F(Texts, WikiText2HasTheKnownTokenCounts) {
  const std::string data = saved("BILLM_DATA_DIR");
  BILLM_NEED(model, "BILLM_DEMO_MODEL");
  if (data.empty() && test::require_data()) FAIL() << "BILLM_DATA_DIR is not set";
  if (data.empty()) GTEST_SKIP() << "BILLM_DATA_DIR is not set";
  const std::string test = load_text("wikitext2", TextSplit::kTest, data).text;
  const std::string validation = load_text("wikitext2", TextSplit::kValidation, data).text;
  const Tokenizer tokenizer = Tokenizer::from_directory(model);
  EXPECT_EQ(tokenizer.encode(test, false).size(), 304978u);
  EXPECT_EQ(tokenizer.encode(validation, false).size(), 268271u);
  auto json = parse_json(read_text_file(model + "/tokenizer.json"));
  json["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  const Tokenizer plain = Tokenizer::from_json(dump_json(json), "plain");
  EXPECT_EQ(plain.encode(test, false).size(), 304986u);
  EXPECT_EQ(plain.encode(validation, false).size(), 268279u);
}

}  // namespace
}  // namespace billm
