// tokenizer.json that billm refuses, damaged files, bad text, and speed. Needs nothing from
// outside.
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <random>
#include <thread>

#include "billm/base/json_text.h"
#include "billm/tokenizer/tokenizer.h"
#include "testing.h"

namespace billm {
namespace {

using nlohmann::json;

Tokenizer small() { return Tokenizer::from_json(dump_json(small_tokenizer()), "t.json"); }

TEST(TokenizerFormat, SmallTokenizerWorks) {
  const Tokenizer tokenizer = small();
  EXPECT_EQ(tokenizer.vocab_size(), 356);
  EXPECT_TRUE(tokenizer.encode("", true).empty());
  // " a" is the second merge: 256 + 1.
  EXPECT_EQ(tokenizer.encode("x a", false), (std::vector<int32_t>{'x', 257}));
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{'x', 257, 9999, -5}), "x a");
  // Maximal subparts, each one U+FFFD: a cut sequence, a lone continuation, an overlong form.
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{0xf0, 0x9f, 0x98, 'x', 0x80, 0xc0, 0xaf}),
            "\xef\xbf\xbdx\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
}

TEST(TokenizerFormat, RefusesWhatItDoesNotSupport) {
  struct Case {
    const char* part;
    std::function<void(json&)> change;
  };
  const auto pre = [](const char* text) {
    return [text](json& t) { t["pre_tokenizer"] = parse_json(text); };
  };
  const auto decoder = [](const char* text) {
    return [text](json& t) { t["decoder"] = parse_json(text); };
  };
  const auto regex = [](const std::string& pattern) {
    return [pattern](json& t) { t = split_tokenizer(pattern, "Isolated", false); };
  };
  const auto post = [](const char* text) {
    return [text](json& t) { t["post_processor"] = parse_json(text); };
  };
  const Case cases[] = {
      {"model.type: expected BPE, got \"Unigram\"",
       [](json& t) { t["model"]["type"] = "Unigram"; }},
      {"model.type: missing", [](json& t) { t["model"].erase("type"); }},
      {"model: missing", [](json& t) { t.erase("model"); }},
      {"model: expected an object", [](json& t) { t["model"] = 3; }},
      {"version", [](json& t) { t["version"] = "2.0"; }},
      {"byte_fallback",
       [](json& t) {
         t["model"]["byte_fallback"] = true;
         t["model"]["vocab"].erase("x");
       }},
      {"dropout", [](json& t) { t["model"]["dropout"] = 0.1; }},
      {"continuing_subword_prefix",
       [](json& t) { t["model"]["continuing_subword_prefix"] = "##"; }},
      {"end_of_word_suffix", [](json& t) { t["model"]["end_of_word_suffix"] = "</w>"; }},
      {"unk_token",
       [](json& t) {
         t["model"]["unk_token"] = "<unk>";
         t["model"]["vocab"].erase("x");
       }},
      {"vocab", [](json& t) { t["model"]["vocab"]["q"] = -1; }},
      {"vocab", [](json& t) { t["model"]["vocab"]["q"] = 2147483648u; }},
      {"vocab", [](json& t) { t["model"]["vocab"]["q"] = 1.5; }},
      {"an id of its own", [](json& t) { t["model"]["vocab"]["q"] = 0; }},
      {"vocab", [](json& t) { t["model"]["vocab"] = json::array(); }},
      {"merges[0]", [](json& t) { t["model"]["merges"][0] = "a b c"; }},
      {"merges[0]", [](json& t) { t["model"]["merges"][0] = 7; }},
      {"merges[1]", [](json& t) { t["model"]["merges"][1] = {"a"}; }},
      {"not in the vocabulary", [](json& t) { t["model"]["merges"][0] = "x nothing"; }},
      {"not in the vocabulary", [](json& t) { t["model"]["merges"][0] = "x x"; }},
      {"merges", [](json& t) { t["model"]["merges"] = nullptr; }},
      {"normalizer.type: expected NFC",
       [](json& t) {
         t["normalizer"] = {{"type", "Lowercase"}};
       }},
      {"normalizers[1].type",
       [](json& t) {
         t["normalizer"] = {{"type", "Sequence"},
                            {"normalizers", {{{"type", "NFC"}}, {{"type", "StripAccents"}}}}};
       }},
      {"BertPreTokenizer", pre(R"({"type": "BertPreTokenizer"})")},
      {"replacement", pre(R"({"type": "Metaspace"})")},
      {"one character", pre(R"({"type": "Metaspace", "replacement": "ab"})")},
      {"one character", pre(R"({"type": "Metaspace", "replacement": ""})")},
      {"always, first or never",
       pre(R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "last"})")},
      {"add_prefix_space",
       pre(R"({"type": "Metaspace", "replacement": "_", "add_prefix_space": false})")},
      {"individual_digits", pre(R"({"type": "Digits"})")},
      {"add_prefix_space", pre(R"({"type": "ByteLevel"})")},
      {"nothing behind ByteLevel",
       pre(R"({"type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": true},
               {"type": "Digits", "individual_digits": true}]})")},
      {"behavior", [](json& t) { t = split_tokenizer("a", "Dropped", false); }},
      {"pattern", [](json& t) { t = split_tokenizer("a", "Removed", false, "Glob"); }},
      {"special_tokens.<s>: missing",
       post(R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}},
               {"Sequence": {"id": "A"}}], "special_tokens": {}})")},
      {"sequence A once",
       post(R"({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "B"}}],
               "special_tokens": {}})")},
      {"sequence A once", post(R"({"type": "TemplateProcessing", "single": []})")},
      {"BertProcessing", post(R"({"type": "BertProcessing"})")},
      {"expected a decoder", [](json& t) { t["decoder"] = nullptr; }},
      {"start", decoder(R"({"type": "Strip", "content": " ", "start": 1001, "stop": 0})")},
      {"stop", decoder(R"({"type": "Strip", "content": " ", "start": 1, "stop": -1})")},
      {"String", decoder(R"({"type": "Replace", "pattern": {"Regex": "a"}, "content": ""})")},
      {"a text", decoder(R"({"type": "Replace", "pattern": {"String": ""}, "content": "a"})")},
      {"a shorter text",  // eight times eight times eight
       decoder(R"({"type": "Sequence", "decoders": [
           {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaa"},
           {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaa"},
           {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaa"}]})")},
      {"decoder.type",
       [](json& t) {
         t["decoder"] = {{"type", "WordPiece"}};
       }},
      {"added_tokens[0]",
       [](json& t) {
         t["added_tokens"] = {{{"id", 1}}};
       }},
      {"added_tokens: expected an array", [](json& t) { t["added_tokens"] = 1; }},
      // Regular expressions.
      {"&&", regex("[a-z&&[^b]]")},
      {"\\b", regex("\\bword")},
      {"\\h", regex("\\h+")},
      {"\\1", regex("(a)\\1")},
      {"kind of group", regex("(?<name>a)")},
      {"kind of group", regex("(?m:a.b)")},
      {"kind of group", regex("a(?i)b")},
      {"negated class inside", regex("[a[^b]]")},
      {"[: :]", regex("[[:alpha:]]")},
      {"property \"greek\"", regex("\\p{Greek}")},
      {"unmatched )", regex("a)")},
      {"without end", regex("(a")},
      {"without end", regex("[a")},
      {"nothing", regex("a|*")},
      {"repetition of a repetition", regex("a+*")},
      {"this large", regex("a{99999}")},
      {"this large", regex("a{99999999999}")},
      {"without regard to case", regex("(?i:stra\xc3\x9f"
                                       "e)")},
      {"without regard to case", regex("(?i:first)")},
      {"without regard to case", regex("(?i:\\p{L})")},
      {"newer than Unicode 14", regex("[\xf0\xa0\x80\x80-\xf0\xb2\x8e\xaf]")},
      {"regular expression", regex("(?<=a+)b")},  // PCRE2 refuses it
      {"a backslash", regex("a\\")},
      {"deep", regex(std::string(2000, '('))},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.part);
    json tokenizer = small_tokenizer();
    one.change(tokenizer);
    expect_bad_input([&] { Tokenizer::from_json(dump_json(tokenizer), "t.json"); },
                     {"t.json", one.part});
  }
}

TEST(TokenizerFormat, RefusesFilesThatAreNotTokenizers) {
  const ScratchDirectory directory;
  expect_bad_input([&] { Tokenizer::from_directory(directory.path()); },
                   {"tokenizer.json", "tokenizer.model", "no such file"});
  directory.write("vocab.json", "{}");  // without merges.txt
  expect_bad_input([&] { Tokenizer::from_directory(directory.path()); }, {"no such file"});
  for (const char* text :
       {"", "{", "[]", "null", "{\"model\": {}}", "\xff\xfe", "{\"a\": 1, \"a\": 2}"}) {
    directory.write("tokenizer.json", text);
    expect_bad_input([&] { Tokenizer::from_directory(directory.path()); }, {"tokenizer.json"});
  }
  std::string deep(100000, '[');
  expect_bad_input([&] { Tokenizer::from_json(deep, "t.json"); }, {"t.json"});
}

TEST(TokenizerFormat, RefusesTextThatIsNotUtf8) {
  const Tokenizer tokenizer = small();
  for (const char* text : {"abc\xff", "abc\xc0\xaf", "abc\xed\xa0\x80", "abc\xf4\x90\x80\x80",
                           "abc\xe2\x82", "abc\x80", "abc\xf0\x8f\x80\x80"}) {
    expect_bad_input([&] { tokenizer.encode(text, false); }, {"UTF-8", "offset 3"});
  }
  EXPECT_EQ(tokenizer.encode("abc\xf4\x8f\xbf\xbf", false).size(), 6u);
}

// Damaged files give a tokenizer or an Error, nothing else.
TEST(TokenizerFormat, DamagedFilesGiveErrors) {
  const json tokenizer = [] {
    json t = split_tokenizer("(?i:'s)|\\p{L}{1,3}+|[^\\s\\p{N}ab-d]+(?!\\S)", "Isolated", false);
    t["normalizer"] = {{"type", "NFC"}};
    t["added_tokens"] = {{{"id", 356},
                          {"content", "<s>"},
                          {"single_word", false},
                          {"lstrip", true},
                          {"rstrip", true},
                          {"normalized", true},
                          {"special", true}}};
    t["post_processor"] = parse_json(
        R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}}], "special_tokens": {"<s>": {"ids": [356]}}})");
    // Few tokens, so that damage hits the rest of the file.
    json vocab = json::object();
    for (const char* token : {"a", "b", "ab", "s", "'"}) vocab[token] = vocab.size();
    t["model"]["vocab"] = vocab;
    t["model"]["merges"] = {"a b"};
    return t;
  }();
  const std::string good = dump_json(tokenizer);
  Tokenizer::from_json(good, "t.json");
  std::mt19937 random(7);
  const auto below = [&](size_t limit) { return random() % limit; };
  static constexpr std::string_view kPieces = "\"{}[]:,-.0123456789()|+*?\\pLNi^$ntrue\xff";
  int accepted = 0;
  for (int i = 0; i < 5000; ++i) {
    std::string text = good;
    for (size_t left = 1 + below(3); left > 0; --left) {
      const size_t at = below(text.size()), size = std::min(below(10), text.size() - at);
      switch (below(4)) {
        case 0:
          text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
          break;
        case 1:
          text.insert(at, 1, kPieces[below(kPieces.size())]);
          break;
        case 2:
          text.erase(at, size);
          break;
        default:
          text.insert(below(text.size()), text.substr(at, 4 * size));
      }
    }
    try {
      const Tokenizer damaged = Tokenizer::from_json(text, "t.json");
      ++accepted;
      damaged.decode(damaged.encode("ab's <s> \xc3\xa9 12 abab", true), true);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput) << error.message();
      EXPECT_EQ(error.message().find('\n'), std::string::npos) << error.message();
    }
  }
  EXPECT_GT(accepted, 50);
  EXPECT_LT(accepted, 4950);
}

// Generous bounds: sanitizers and a loaded machine pass, quadratic work does not.
TEST(TokenizerFormat, LongWordsAndRunsAreNotQuadratic) {
  const Tokenizer tokenizer = small();
  constexpr size_t kSize = 1'000'000;
  for (const char* unit : {"a", "ab's", " ", "\n", "1", "\xc3\xa9", "x"}) {
    std::string text;
    while (text.size() < kSize) text += unit;
    const auto start = std::chrono::steady_clock::now();
    const auto ids = tokenizer.encode(text, false);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    EXPECT_LT(seconds.count(), 20) << "a run of " << unit;
    EXPECT_EQ(tokenizer.decode(ids), text);
  }
}

TEST(TokenizerFormat, EndlessPatternsAreAnError) {
  const Tokenizer tokenizer = Tokenizer::from_json(
      dump_json(split_tokenizer("(?:(?:a|b|[a-b])+)+\\p{Lu}", "Isolated", false)), "t.json");
  expect_bad_input([&] { tokenizer.encode(std::string(200, 'a'), false); }, {"gave up at byte 0"});
}

// The two ways of merging give the same ids: a word of more than 64 bytes takes the heap.
TEST(TokenizerFormat, LongAndShortWordsMergeAlike) {
  json json = small_tokenizer();
  json["pre_tokenizer"]["use_regex"] = false;
  const Tokenizer tokenizer = Tokenizer::from_json(dump_json(json), "t.json");
  std::mt19937 random(3);
  for (int i = 0; i < 200; ++i) {
    std::string text;
    for (int k = 0; k < 60; ++k) text += "ab1.s'"[random() % 6];
    // A byte that merges with nothing keeps the two parts of the long word apart.
    std::vector<int32_t> twice = tokenizer.encode(text, false);
    const std::vector<int32_t> once = twice;
    twice.push_back('x');
    twice.insert(twice.end(), once.begin(), once.end());
    EXPECT_EQ(tokenizer.encode(text + "x" + text, false), twice);
  }
}

TEST(TokenizerFormat, EncodesFromSeveralThreads) {
  const Tokenizer tokenizer = small();
  std::mt19937 random(5);
  std::vector<std::string> texts;
  std::vector<std::vector<int32_t>> expected;
  for (int i = 0; i < 200; ++i) {
    texts.push_back(random_text(random, {}));
    expected.push_back(tokenizer.encode(texts.back(), true));
  }
  std::vector<std::thread> threads;
  std::atomic<int> misses = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (size_t i = 0; i < texts.size(); ++i) {
        if (tokenizer.encode(texts[i], true) != expected[i]) ++misses;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(misses, 0);
}

}  // namespace
}  // namespace billm
