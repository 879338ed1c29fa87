// Helpers of the tokenizer tests: random Unicode text and small tokenizers to vary.
#pragma once

#include <cstdio>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "billm/base/json_text.h"
#include "unit/checkpoint/testing.h"

namespace billm {

inline void append_code_point(char32_t c, std::string& out) {
  const auto put = [&](char32_t value) { out.push_back(static_cast<char>(value)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xc0 | c >> 6);
    put(0x80 | (c & 0x3f));
  } else {
    if (c < 0x10000) {
      put(0xe0 | c >> 12);
    } else {
      put(0xf0 | c >> 18);
      put(0x80 | (c >> 12 & 0x3f));
    }
    put(0x80 | (c >> 6 & 0x3f));
    put(0x80 | (c & 0x3f));
  }
}

// Every character of Unicode, each followed by `separator`, in texts of 2048 characters (the
// library is slow on long ones).
inline std::vector<std::string> all_characters(std::string_view separator) {
  std::vector<std::string> texts;
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c == 0x33800) c = 0xe0000;
    if (c == 0xe0800) c = 0x10f800;
    if (c % 2048 == 0 && c != 0xd800) texts.emplace_back();
    if (c >= 0xd800 && c < 0xe000) continue;
    append_code_point(c, texts.back());
    texts.back() += separator;
  }
  return texts;
}

// Pieces that tokenizers stumble over, mixed at random with each other and with `extra`.
inline std::string random_text(std::mt19937& random, const std::vector<std::string>& extra) {
  static const std::vector<std::string> kPieces = {
      " ",
      " ",
      "  ",
      "   ",
      "\t",
      "\n",
      "\r\n",
      "\n\n",
      "\r",
      "\v",
      "\f",
      " \n ",
      "\xc2\x85",
      "\xc2\xa0",
      "\xe3\x80\x80",
      "\xe2\x80\xa8",
      "\xe1\xa0\x8e",
      "\xe2\x80\x8b",
      "\xef\xbb\xbf",
      "'s",
      "'S",
      "'re",
      "'LL",
      "'\xc5\xbf",
      "\xe2\x80\x99s",
      "'d'm",
      "it's",
      "don't",
      "the",
      "Hello",
      "world",
      "x",
      "_",
      "...",
      "!?",
      "#",
      "<|",
      "|>",
      "0",
      "42",
      "1234567",
      "3.14",
      "\xd9\xa3\xd9\xa4",
      "\xe0\xa5\xa7\xe0\xa5\xa8",
      "\xef\xbc\x91\xef\xbc\x92",
      "\xc2\xb2\xc2\xbd",
      "\xe2\x85\xa7",
      "\xe3\x80\x87\xe4\xb8\x80",
      "e\xcc\x81",
      "\xc3\xa9",
      "a\xcc\xa3\xcc\x87",
      "a\xcc\x87\xcc\xa3",
      "\xcc\x81",
      "\xef\xac\x81",
      "\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8",
      "\xea\xb0\x80\xe1\x86\xa8",
      "\xe2\x84\xab",
      "\xe2\x84\xa6",
      "\xef\xbd\xb6\xef\xbe\x9e",
      "\xe6\xbc\xa2\xe5\xad\x97",
      "\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa7",
      "\xf0\x9f\x87\xa9\xf0\x9f\x87\xaa",
      "\xf0\x9f\x91\x8d\xf0\x9f\x8f\xbd",
      "\xe2\x9d\xa4\xef\xb8\x8f",
      "\xf0\x9e\xa4\x80",
      "\xe0\xb8\x99\xe0\xb9\x89\xe0\xb8\xb3"};
  // Characters of Unicode 14 to 17, which the libraries involved know in part.
  static constexpr std::pair<char32_t, char32_t> kNew[] = {
      {0x11f00, 0x11f59}, {0x1e4d0, 0x1e4f9}, {0x31350, 0x323af}, {0x2ebf0, 0x2ee5d},
      {0x105c0, 0x105f3}, {0x11de0, 0x11de9}, {0x10d40, 0x10d8f}, {0x1e030, 0x1e06d},
      {0x16d40, 0x16d79}, {0x10780, 0x107ba}, {0x113d0, 0x113d8}, {0x1df25, 0x1df2a}};
  const auto below = [&](size_t limit) { return random() % limit; };
  std::string text;
  for (size_t left = 1 + below(24); left > 0; --left) {
    switch (below(8)) {
      case 0: {
        char32_t c = static_cast<char32_t>(below(0x110000));
        if (c >= 0xd800 && c < 0xe000) c = 0x1f600;
        append_code_point(c, text);
        break;
      }
      case 1:  // the lower planes are fuller
        append_code_point(static_cast<char32_t>(below(below(2) == 0 ? 0xd800 : 0x600)), text);
        break;
      case 2: {
        const auto& [first, last] = kNew[below(std::size(kNew))];
        append_code_point(first + static_cast<char32_t>(below(last - first + 1)), text);
        break;
      }
      case 3:
        if (!extra.empty()) text += extra[below(extra.size())];
        break;
      default:
        text += kPieces[below(kPieces.size())];
    }
  }
  return text;
}

// A byte-level tokenizer with one token per byte (its id), and all pairs of a few bytes merged.
inline nlohmann::json small_tokenizer() {
  using nlohmann::json;
  std::vector<std::string> symbols(256);
  char32_t next = 256;
  for (unsigned b = 0; b < 256; ++b) {
    const bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b != 0xad);
    append_code_point(printable ? b : next++, symbols[b]);
  }
  json vocab = json::object(), merges = json::array();
  for (int b = 0; b < 256; ++b) vocab[symbols[b]] = b;
  int id = 256;
  const std::string_view merged = " abs'1\n.\xc3\xa9";
  for (const char x : merged) {
    for (const char y : merged) {
      const auto& left = symbols[static_cast<unsigned char>(x)];
      const auto& right = symbols[static_cast<unsigned char>(y)];
      vocab[left + right] = id++;
      merges.push_back(id % 2 == 0 ? json(left + " " + right) : json::array({left, right}));
    }
  }
  // The library wants one kind of merges in a file; from_json of billm takes both.
  for (json& merge : merges) {
    if (merge.is_string()) {
      const std::string line = merge.get<std::string>();
      merge = json::array({line.substr(0, line.find(' ')), line.substr(line.find(' ') + 1)});
    }
  }
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "ByteLevel"},
            {"add_prefix_space", false},
            {"trim_offsets", true},
            {"use_regex", true}}},
          {"post_processor", nullptr},
          {"decoder",
           {{"type", "ByteLevel"},
            {"add_prefix_space", true},
            {"trim_offsets", true},
            {"use_regex", true}}},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", vocab},
            {"merges", merges}}}};
}

// The small tokenizer with Split in front of ByteLevel.
inline nlohmann::json split_tokenizer(const std::string& pattern, const std::string& behavior,
                                      bool invert, const std::string& kind = "Regex") {
  nlohmann::json tokenizer = small_tokenizer();
  tokenizer["pre_tokenizer"] = {{"type", "Sequence"},
                                {"pretokenizers",
                                 {{{"type", "Split"},
                                   {"pattern", {{kind, pattern}}},
                                   {"behavior", behavior},
                                   {"invert", invert}},
                                  {{"type", "ByteLevel"},
                                   {"add_prefix_space", false},
                                   {"trim_offsets", true},
                                   {"use_regex", false}}}}};
  return tokenizer;
}

// A SentencePiece-style tokenizer in LLaMA-2's structure: ids 0 to 2 special, 3 to 258 the bytes,
// then a few characters and all their pairs, some pairs also with U+2581 in front.
inline nlohmann::json small_sentencepiece() {
  using nlohmann::json;
  const std::string space = "\xe2\x96\x81";
  json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}}, merges = json::array();
  char token[8];
  for (int b = 0; b < 256; ++b) {
    std::snprintf(token, sizeof(token), "<0x%02X>", static_cast<unsigned>(b));
    vocab[token] = 3 + b;
  }
  int id = 259;
  const std::vector<std::string> characters = {space, "a", "b", "s", "t", "\xc3\xa9", "."};
  for (const std::string& character : characters) vocab[character] = id++;
  const auto merge = [&](const std::string& left, const std::string& right) {
    vocab[left + right] = id++;
    merges.push_back({left, right});
  };
  for (const std::string& x : characters) {
    for (const std::string& y : characters) merge(x, y);
  }
  for (const char* piece : {"ab", "at", "st"}) merge(space, piece);
  json tokenizer = parse_json(R"({
    "version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [
      {"id": 0, "content": "<unk>", "single_word": false, "lstrip": false, "rstrip": false,
       "normalized": false, "special": true},
      {"id": 1, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
       "normalized": false, "special": true},
      {"id": 2, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
       "normalized": false, "special": true}],
    "normalizer": {"type": "Sequence", "normalizers": [
      {"type": "Prepend", "prepend": "▁"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
    "pre_tokenizer": null,
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                 {"Sequence": {"id": "A", "type_id": 0}}],
      "pair": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
               {"Sequence": {"id": "A", "type_id": 0}},
               {"SpecialToken": {"id": "<s>", "type_id": 1}},
               {"Sequence": {"id": "B", "type_id": 1}}],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
    "decoder": {"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
      {"type": "ByteFallback"}, {"type": "Fuse"},
      {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>",
      "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
      "byte_fallback": true}})");
  tokenizer["model"]["vocab"] = vocab;
  tokenizer["model"]["merges"] = merges;
  return tokenizer;
}

inline std::vector<std::string> added_contents(const nlohmann::json& tokenizer) {
  std::vector<std::string> contents;
  for (const auto& token : tokenizer["added_tokens"]) {
    contents.push_back(token["content"].get<std::string>());
  }
  return contents;
}

inline std::vector<std::string> random_texts(int count, const std::vector<std::string>& extra) {
  std::mt19937 random(20240607);
  std::vector<std::string> texts = {""};
  for (int i = 0; i < count; ++i) texts.push_back(random_text(random, extra));
  return texts;
}

}  // namespace billm
