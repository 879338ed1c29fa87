// Comparison of ids and texts with the libraries of HuggingFace:
// tests/support/tokenizer_reference.py.
#pragma once

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "billm/base/file.h"
#include "billm/base/printable.h"
#include "billm/hub/texts.h"
#include "billm/tokenizer/tokenizer.h"
#include "support/environment.h"
#include "testing.h"

namespace billm {

// Collects tokenizers with texts and compares all with the library in one run of Python.
class ReferenceComparison {
 public:
  // A tokenizer.json, with the `tokenizers` library. `label` names the case in failures.
  void add(const std::string& label, const std::string& json, std::vector<std::string> texts) {
    const std::string path = scratch_.write(std::to_string(cases_.size()) + ".json", json).string();
    cases_.push_back({label, path, std::move(texts)});
  }
  // A folder, as the class of transformers loads it: "LlamaTokenizer", "GPT2Tokenizer", ...
  void add_folder(const std::string& label, const std::string& class_name,
                  const std::filesystem::path& folder, std::vector<std::string> texts) {
    cases_.push_back({label, class_name + ":" + folder.string(), std::move(texts)});
  }

  void run(const std::string& python) {
    std::vector<std::string> arguments = {"compare", std::to_string(kLongText)};
    for (size_t i = 0; i < cases_.size(); ++i) {
      Case& one = cases_[i];
      one.ids = random_ids(load(one).vocab_size());
      std::string input;
      put(one.texts.size(), input);
      for (const std::string& text : one.texts) {
        put(text.size(), input);
        input += text;
      }
      put(one.ids.size(), input);
      for (const auto& ids : one.ids) {
        put(ids.size(), input);
        input.append(reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(int32_t));
      }
      const std::string stem = std::to_string(i);
      arguments.push_back(one.source);
      arguments.push_back(scratch_.write(stem + ".in", input).string());
      arguments.push_back((scratch_.path() / (stem + ".out")).string());
    }
    test::run_python(python, "tokenizer_reference.py", arguments);
    for (size_t i = 0; i < cases_.size(); ++i) compare(cases_[i], arguments[3 * i + 4]);
  }

 private:
  // Longer texts, in bytes, are encoded once, with special tokens: what these add to a text is the
  // matter of the short ones.
  static constexpr size_t kLongText = 2000;

  struct Case {
    std::string label, source;
    std::vector<std::string> texts;
    std::vector<std::vector<int32_t>> ids = {};
  };

  static Tokenizer load(const Case& one) {
    const size_t colon = one.source.find(':');
    if (colon != std::string::npos) {
      return Tokenizer::from_directory(one.source.substr(colon + 1));
    }
    return Tokenizer::from_json(read_text_file(one.source), one.label);
  }

  // Ids of all kinds, many of them bytes (the first few hundred in every vocabulary), some that
  // name no token.
  static std::vector<std::vector<int32_t>> random_ids(int64_t vocab_size) {
    std::mt19937 random(11);
    std::vector<std::vector<int32_t>> result(200);
    for (auto& ids : result) {
      ids.resize(random() % 40);
      for (int32_t& id : ids) {
        const int64_t limit = random() % 3 == 0 ? vocab_size + 3 : 300;
        id = static_cast<int32_t>(random() % static_cast<uint64_t>(limit));
      }
    }
    return result;
  }

  static void put(size_t value, std::string& out) {
    const uint32_t word = static_cast<uint32_t>(value);
    out.append(reinterpret_cast<const char*>(&word), sizeof word);
  }

  static void compare(const Case& one, const std::string& out_path) {
    const Tokenizer tokenizer = load(one);
    const std::string out = read_text_file(out_path);
    size_t at = 0;
    const auto take = [&](size_t width) {
      uint32_t count = 0;
      std::memcpy(&count, out.data() + at, 4);
      const std::string bytes = out.substr(at + 4, count * width);
      at += 4 + bytes.size();
      return bytes;
    };
    int failures = 0;
    for (const std::string& text : one.texts) {
      bool same = true;
      for (const bool special : {false, true}) {
        if (!special && text.size() > kLongText) continue;
        const std::string bytes = take(4), decoded = take(1);
        std::vector<int32_t> expected(bytes.size() / 4);
        if (!expected.empty()) std::memcpy(expected.data(), bytes.data(), bytes.size());
        const std::vector<int32_t> ids = tokenizer.encode(text, special);
        const std::string back = tokenizer.decode(expected, special);
        if (ids == expected && back == decoded) continue;
        same = false;
        const auto differ = std::mismatch(ids.begin(), ids.end(), expected.begin(), expected.end());
        const auto first = static_cast<size_t>(differ.first - ids.begin());
        ADD_FAILURE() << one.label << (special ? ", special tokens" : "") << ": text "
                      << shown(text) << "\n  billm's ids from " << first << ": "
                      << shown(ids, first) << "\n  expected: " << shown(expected, first)
                      << "\n  decoded: " << shown(back) << "\n  expected: " << shown(decoded);
      }
      if (!same && ++failures == 3) return;
    }
    for (const auto& ids : one.ids) {
      for (const bool skip : {false, true}) {
        const std::string decoded = take(1);
        EXPECT_EQ(shown(tokenizer.decode(ids, skip)), shown(decoded))
            << one.label << ": ids " << shown(ids, 0);
      }
    }
    EXPECT_EQ(at, out.size());
  }

  static std::string shown(const std::string& text) {
    return '"' + printable(text.substr(0, 300)) + '"';
  }
  static std::string shown(const std::vector<int32_t>& ids, size_t first) {
    std::string text;
    for (size_t i = first; i < ids.size() && i < first + 40; ++i) {
      text += std::to_string(ids[i]) + " ";
    }
    return text;
  }

  const ScratchDirectory scratch_;
  std::vector<Case> cases_;
};

// Thousands of random texts, the test split of WikiText-2 and both of C4.
inline std::vector<std::string> real_and_random_texts(const std::string& data,
                                                      const std::vector<std::string>& extra) {
  constexpr int kRandomTexts = 4000;
  std::vector<std::string> texts = random_texts(kRandomTexts, extra);
  texts.push_back(load_text("wikitext2", TextSplit::kTest, data).text);
  texts.push_back(load_text("c4", TextSplit::kCalibration, data).text);
  texts.push_back(load_text("c4", TextSplit::kTest, data).text);
  return texts;
}

}  // namespace billm
