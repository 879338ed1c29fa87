// SentencePiece's tokenizers in tokenizer.json: every option of theirs gives the ids and texts of
// the `tokenizers` library.
#include <gtest/gtest.h>

#include "billm/base/json_text.h"
#include "reference.h"

namespace billm {
namespace {

using nlohmann::json;

const std::string kSpace = "\xe2\x96\x81";

TEST(TokenizerSentencePieceJson, EveryOption) {
  BILLM_NEED(python, "BILLM_PYTHON");
  ReferenceComparison comparison;
  const auto texts = random_texts(
      300, {"ab", " ab", "at st", "  ", "\n", "<s>", "<s> a", "a</s>b", " .", kSpace, kSpace + "a",
            "\xc3\xa9\xc3\xa9", "x", "xy", "\xf0\x9f\x98\x80", "<0x41>", "<unk>"});
  const auto vary = [&](const std::string& label, auto change) {
    json tokenizer = small_sentencepiece();
    change(tokenizer);
    comparison.add(label, dump_json(tokenizer), texts);
  };
  vary("as it is", [](json&) {});
  for (const char* scheme : {"always", "first", "never"}) {
    for (const bool split : {false, true}) {
      const auto metaspace = [=](json& t) {
        t["normalizer"] = nullptr;
        t["pre_tokenizer"] = {{"type", "Metaspace"},
                              {"replacement", kSpace},
                              {"prepend_scheme", scheme},
                              {"split", split}};
      };
      const std::string label = std::string(scheme) + (split ? " split" : "");
      vary(label, metaspace);
      vary("Metaspace decoder, " + label, [&](json& t) {
        metaspace(t);
        t["decoder"] = t["pre_tokenizer"];
      });
      vary("behind a split, " + label, [&](json& t) {
        metaspace(t);
        t["pre_tokenizer"] = {{"type", "Sequence"},
                              {"pretokenizers",
                               {{{"type", "Split"},
                                 {"pattern", {{"Regex", "s|\\d"}}},
                                 {"behavior", "Isolated"},
                                 {"invert", false}},
                                t["pre_tokenizer"],
                                {{"type", "Split"},
                                 {"pattern", {{"String", "b"}}},
                                 {"behavior", "Removed"},
                                 {"invert", false}}}}};
      });
      vary("normalized added tokens, " + label, [&](json& t) {
        metaspace(t);
        for (json& token : t["added_tokens"]) token["normalized"] = true;
      });
    }
  }
  vary("old Metaspace", [](json& t) {
    t["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "a"}, {"add_prefix_space", true}};
    t["decoder"] = t["pre_tokenizer"];
  });
  vary("old Metaspace without prefix", [](json& t) {
    t["pre_tokenizer"] = {{"type", "Metaspace"},
                          {"replacement", kSpace},
                          {"add_prefix_space", false},
                          {"prepend_scheme", "never"}};
  });
  // Gemma
  vary("Split with the one before", [](json& t) {
    t["normalizer"] = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpace}};
    t["pre_tokenizer"] = {{"type", "Split"},
                          {"pattern", {{"String", " "}}},
                          {"behavior", "MergedWithPrevious"},
                          {"invert", false}};
  });
  vary("normalized added tokens", [](json& t) {
    for (json& token : t["added_tokens"]) token["normalized"] = true;
  });
  for (const bool fuse : {false, true}) {
    for (const bool fallback : {false, true}) {
      for (const bool unknown : {false, true}) {
        vary("unknown characters", [&](json& t) {
          t["model"]["fuse_unk"] = fuse;
          t["model"]["byte_fallback"] = fallback;
          if (!unknown) t["model"]["unk_token"] = nullptr;
          // Characters with all bytes, with some and with none of them.
          for (const char* token : {"<0xC3>", "<0xE2>", "<0x78>", "<0x74>"}) {
            t["model"]["vocab"].erase(token);
          }
        });
      }
    }
  }
  vary("ignore_merges", [](json& t) {
    t["model"]["ignore_merges"] = true;
    t["model"]["vocab"][kSpace + "Hello"] = 900;
  });
  vary("longer replacements", [](json& t) {
    t["normalizer"]["normalizers"].push_back(
        {{"type", "Replace"}, {"pattern", {{"String", "st"}}}, {"content", "ab."}});
    t["decoder"]["decoders"].push_back(
        {{"type", "Replace"}, {"pattern", {{"String", "ab"}}}, {"content", ""}});
  });
  const auto decoder = [&](const char* label, const char* text) {
    vary(label, [&](json& t) { t["decoder"] = parse_json(text); });
  };
  decoder("fuse first", R"({"type": "Sequence", "decoders": [{"type": "Fuse"},
                            {"type": "ByteFallback"}]})");
  decoder("bytes only", R"({"type": "ByteFallback"})");
  decoder("strip each", R"({"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "▁"}, "content": "é"}, {"type": "ByteFallback"},
      {"type": "Strip", "content": "é", "start": 2, "stop": 0}]})");
  decoder("byte-level", R"({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                            "use_regex": true})");
  comparison.run(python);
}

}  // namespace
}  // namespace billm
