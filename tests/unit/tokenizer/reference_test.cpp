// Ids and decoded texts equal the `tokenizers` library's: real tokenizers on real and random text,
// and every option of a small one. Needs Python with that library.
#include "reference.h"

#include <gtest/gtest.h>

#include "billm/base/json_text.h"
#include "billm/tokenizer/tokenizer.h"

namespace billm {
namespace {

void compare_real(const std::string& python, const std::string& data, const std::string& json,
                  const std::string& label) {
  ReferenceComparison comparison;
  const auto added = added_contents(parse_json(json));
  comparison.add(label, json, real_and_random_texts(data, added));
  comparison.run(python);
}

TEST(TokenizerReference, DemoModel) {
  BILLM_NEED(python, "BILLM_PYTHON");
  BILLM_NEED(data, "BILLM_DATA_DIR");
  BILLM_NEED(model, "BILLM_DEMO_MODEL");
  compare_real(python, data, read_text_file(model + "/tokenizer.json"), "demo");
}

TEST(TokenizerReference, Dolma2) {
  BILLM_NEED(python, "BILLM_PYTHON");
  BILLM_NEED(data, "BILLM_DATA_DIR");
  compare_real(python, data, read_text_file(data + "/tokenizers/dolma2/tokenizer.json"), "dolma2");
}

TEST(TokenizerReference, GptNeox) {
  BILLM_NEED(python, "BILLM_PYTHON");
  BILLM_NEED(data, "BILLM_DATA_DIR");
  compare_real(python, data, read_text_file(data + "/tokenizers/gpt-neox-olmo/tokenizer.json"),
               "gpt-neox");
}

TEST(TokenizerReference, EveryBehaviorOfSplit) {
  BILLM_NEED(python, "BILLM_PYTHON");
  ReferenceComparison comparison;
  const auto texts = random_texts(60, {"aab", "1a1", "ab ab", "..", "bb.a"});
  for (const char* behavior :
       {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"}) {
    for (const bool invert : {false, true}) {
      for (const char* pattern : {"\\s+", "a|1", "x*", "[ab]{1,2}", "(?=a)", ""}) {
        comparison.add(std::string(behavior) + " " + pattern + (invert ? " inverted" : ""),
                       dump_json(split_tokenizer(pattern, behavior, invert)), texts);
      }
      comparison.add(std::string(behavior) + " string",
                     dump_json(split_tokenizer("a.", behavior, invert, "String")), texts);
    }
  }
  comparison.run(python);
}

// The regular expressions of well-known byte-level tokenizers, and constructs that the library's
// engine reads in its own way.
TEST(TokenizerReference, Patterns) {
  BILLM_NEED(python, "BILLM_PYTHON");
  const char* const patterns[] = {
      // LLaMA-3
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
      // Qwen2
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
      // cl100k, possessive
      R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s)",
      // o200k
      R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
      // DeepSeek-V3
      R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
      R"([一-龥\u0800-\u083f゠-ヿ]+)",
      // BLOOM: a class in a class
      R"( ?[^(\s|[.,!?…。，、।۔،])]+)", R"(^a|b$)", R"(\Aa|b\z)", R"(^)", R"($)", R"(\s++$|\s)",
      R"(a{,2})", R"(a{2}+)", R"(a{1,2}?)", R"(a{x|b{)", R"([-a]+|[b-]+)", R"([a-b&]+)",
      R"(\p{^L}+)", R"(\P{L}+)", R"(\P{^N})", R"([^\P{L}])", R"([\S]+)", R"([^\S]+)", R"(\D+)",
      R"([\D]+)", R"(\x41\x{42}\u0043)", R"(\v\t?)", R"((?<=a)b|(?<!a|bb)s)",
      R"((?>a+)b|(?:a|b)+?s)", R"((a)(b)+)", R"(.+)", R"(a|)", R"(}|])",
      R"((?i)hello|WORLD|[a-b]+)", R"((?i:a(?-i:B)))", R"(\W+)",
      R"(\p{Letter}+|\p{ punctuation }+)"};
  ReferenceComparison comparison;
  const auto texts =
      random_texts(200, {"a", "b", "aab", "ab\n", "b\na", "aB", "AB", "ABC", "HELLO", "bs", "a{x"});
  for (const char* pattern : patterns) {
    comparison.add(std::string("isolated ") + pattern,
                   dump_json(split_tokenizer(pattern, "Isolated", false)), texts);
    comparison.add(std::string("removed ") + pattern,
                   dump_json(split_tokenizer(pattern, "Removed", true)), texts);
  }
  comparison.run(python);
}

// What is left of all characters after a class has been removed says which ones it matched.
TEST(TokenizerReference, ClassesOfEveryCharacter) {
  BILLM_NEED(python, "BILLM_PYTHON");
  ReferenceComparison comparison;
  const std::vector<std::string> all = all_characters("");
  for (const char* pattern : {"\\s",         "\\w",
                              "\\p{Lu}",     "\\p{Ll}",
                              "\\p{Lt}",     "\\p{Lm}",
                              "\\p{Lo}",     "\\p{Mn}",
                              "\\p{Mc}",     "\\p{Me}",
                              "\\p{Nd}",     "\\p{Nl}",
                              "\\p{No}",     "\\p{P}",
                              "\\p{S}",      "\\p{Z}",
                              "\\p{Cc}",     "\\p{Cf}",
                              "\\p{Cn}",     "\\p{Co}",
                              "\\p{Han}",    "[^\\s\\p{L}\\p{N}]",
                              "(?i:'s|'t|k)"}) {
    comparison.add(pattern, dump_json(split_tokenizer(pattern, "Removed", false)), all);
  }
  for (const bool individual : {false, true}) {
    auto tokenizer = small_tokenizer();
    tokenizer["pre_tokenizer"] = {
        {"type", "Sequence"},
        {"pretokenizers",
         {{{"type", "Digits"}, {"individual_digits", individual}}, tokenizer["pre_tokenizer"]}}};
    // Bytes next to each character merge unless a split parts them.
    comparison.add("digits", dump_json(tokenizer), all_characters("1"));
    comparison.add("digits", dump_json(tokenizer), all_characters("a1 "));
  }
  comparison.run(python);
}

TEST(TokenizerReference, NormalizationOfEveryCharacter) {
  BILLM_NEED(python, "BILLM_PYTHON");
  ReferenceComparison comparison;
  std::vector<std::string> texts = random_texts(500, {"\xcc\x81", "\xcc\xa7", "\xe0\xa7\x87", "q"});
  // Alone, before a combining acute and behind a letter with a dot below (compositions,
  // reordering).
  for (const char* separator : {"\n", "\xcc\x81", "a\xcc\xa3"}) {
    for (std::string& text : all_characters(separator)) texts.push_back(std::move(text));
  }
  using nlohmann::json;
  for (const char* form : {"NFC", "NFD", "NFKC", "NFKD"}) {
    auto tokenizer = small_tokenizer();
    tokenizer["normalizer"] = {{"type", form}};
    comparison.add(form, dump_json(tokenizer), texts);
  }
  auto tokenizer = small_tokenizer();
  tokenizer["normalizer"] = {{"type", "Sequence"},
                             {"normalizers", {{{"type", "NFKD"}}, {{"type", "NFC"}}}}};
  comparison.add("NFKD, NFC", dump_json(tokenizer), texts);
  comparison.run(python);
}

nlohmann::json added(int id, const std::string& content, bool single_word, bool lstrip, bool rstrip,
                     bool normalized, bool special) {
  return {{"id", id},          {"content", content}, {"single_word", single_word},
          {"lstrip", lstrip},  {"rstrip", rstrip},   {"normalized", normalized},
          {"special", special}};
}

TEST(TokenizerReference, AddedTokens) {
  BILLM_NEED(python, "BILLM_PYTHON");
  ReferenceComparison comparison;
  const std::string e_acute = "\xc3\xa9";
  std::vector<std::string> extra = {"<s>", "<s>x",  "ab",  "\xe2\x84\xab", "e\xcc\x81", "  ",
                                    "<l>", " <l> ", "<r>", "<b>",          "ababab"};
  for (const bool single : {false, true}) {
    for (const bool normalized : {false, true}) {
      auto tokenizer = small_tokenizer();
      const int base = static_cast<int>(tokenizer["model"]["vocab"].size());
      tokenizer["normalizer"] = {{"type", "NFC"}};
      tokenizer["added_tokens"] = {
          added(base, "<s>", single, false, false, normalized, true),
          added(base + 1, "<s>x", single, false, false, false, false),
          added(base + 2, "<l>", single, true, false, normalized, true),
          added(base + 3, "<r>", single, false, true, false, false),
          added(base + 4, "<b>", single, true, true, normalized, true),
          added(97, "a", true, false, false, normalized, false),
          added(base + 5, "e\xcc\x81", single, false, false, normalized, true),
          added(base + 6, "   ", false, false, false, normalized, false),
          added(base + 7, "ababab", false, false, false, normalized, false)};
      comparison.add("added", dump_json(tokenizer), random_texts(400, extra));
    }
  }
  comparison.run(python);
}

TEST(TokenizerReference, ModelAndTemplateOptions) {
  BILLM_NEED(python, "BILLM_PYTHON");
  ReferenceComparison comparison;
  const auto texts = random_texts(200, {"aab", " ab", "a b", "sss", "11"});
  const auto vary = [&](const std::string& label, auto change) {
    auto tokenizer = small_tokenizer();
    change(tokenizer);
    comparison.add(label, dump_json(tokenizer), texts);
  };
  vary("ignore_merges", [](auto& t) {
    t["model"]["ignore_merges"] = true;
    t["model"]["vocab"]["world"] = 900;
    t["model"]["vocab"]["Hello"] = 901;
  });
  const auto drop = [](auto& t) {
    for (const char* token : {"x", "o", "!", "\xc3\x91"}) t["model"]["vocab"].erase(token);
  };
  vary("missing bytes", drop);
  for (const bool fuse : {false, true}) {
    vary("unk", [&](auto& t) {
      drop(t);
      t["model"]["vocab"]["<unk>"] = 950;
      t["model"]["unk_token"] = "<unk>";
      t["model"]["fuse_unk"] = fuse;
    });
  }
  vary("merges as strings", [](auto& t) {
    auto lines = nlohmann::json::array({"#version: 0.2"});
    for (const auto& pair : t["model"]["merges"]) {
      lines.push_back(pair[0].template get<std::string>() + " " +
                      pair[1].template get<std::string>());
    }
    t["model"]["merges"] = lines;
  });
  vary("prefix space", [](auto& t) { t["pre_tokenizer"]["add_prefix_space"] = true; });
  vary("no regex", [](auto& t) { t["pre_tokenizer"]["use_regex"] = false; });
  vary("prefix space behind a split", [](auto& t) {
    t["pre_tokenizer"]["add_prefix_space"] = true;
    t["pre_tokenizer"] = {
        {"type", "Sequence"},
        {"pretokenizers", {{{"type", "Digits"}, {"individual_digits", true}}, t["pre_tokenizer"]}}};
  });
  vary("template", [](auto& t) {
    using nlohmann::json;
    t["added_tokens"] = {added(356, "<s>", false, false, false, false, true),
                         added(357, "</s>", false, false, false, false, true)};
    const json a = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
    const json b = {{"Sequence", {{"id", "B"}, {"type_id", 1}}}};
    const json bos = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
    const json eos = {{"SpecialToken", {{"id", "</s>"}, {"type_id", 0}}}};
    t["post_processor"] = {
        {"type", "Sequence"},
        {"processors",
         {{{"type", "ByteLevel"},
           {"add_prefix_space", true},
           {"trim_offsets", false},
           {"use_regex", true}},
          {{"type", "TemplateProcessing"},
           {"single", {bos, a, eos, eos}},
           {"pair", {a, b}},
           {"special_tokens",
            {{"<s>", {{"id", "<s>"}, {"ids", {356}}, {"tokens", {"<s>"}}}},
             {"</s>", {{"id", "</s>"}, {"ids", {357, 3}}, {"tokens", {"</s>", "$"}}}}}}}}}};
  });
  comparison.run(python);
}

}  // namespace
}  // namespace billm
