// SentencePiece's tokenizers from tokenizer.model and from tokenizer.json: ids and texts equal
// those of transformers' LlamaTokenizer and of the `tokenizers` library; damaged model files.
#include <gtest/gtest.h>

#include <chrono>

#include "billm/base/json_text.h"
#include "reference.h"

namespace billm {
namespace {

using nlohmann::json;

const std::string kSpace = "\xe2\x96\x81";

std::string message(int field, std::string_view bytes) {
  std::string result(1, static_cast<char>(field << 3 | 2));
  for (size_t left = bytes.size();; left >>= 7) {
    result += static_cast<char>((left & 0x7f) | (left > 0x7f ? 0x80 : 0));
    if (left <= 0x7f) break;
  }
  return result + std::string(bytes);
}

std::string number(int field, int value) {
  return {static_cast<char>(field << 3), static_cast<char>(value)};
}

// A piece of sentencepiece_model.proto: 1 normal, 2 unknown, 3 control, 4 user-defined, 6 byte.
std::string piece(std::string_view text, int type) {
  const std::string score = std::string("\x15", 1) + std::string(4, '\0');  // field 2, a float
  return message(1, message(1, text) + score + number(3, type));
}

// What small_sentencepiece() is in tokenizer.json, as tokenizer.model.
std::string small_model(int model_type = 2) {
  const json vocab = small_sentencepiece()["model"]["vocab"];
  std::vector<std::string> tokens(vocab.size());
  for (const auto& [token, id] : vocab.items()) tokens[id.get<size_t>()] = token;
  std::string model;
  for (size_t id = 0; id < tokens.size(); ++id) {
    model += piece(tokens[id], id == 0 ? 2 : id < 3 ? 3 : id < 259 ? 6 : 1);
  }
  model += piece("<user>", 4) + piece("[INST]", 3);
  model += message(2, number(3, model_type) + number(1, 1));
  return model + message(3, message(1, "identity"));
}

TEST(TokenizerSentencePiece, SmallModel) {
  const Tokenizer tokenizer = Tokenizer::from_sentencepiece(small_model(), "", "t.model");
  EXPECT_TRUE(tokenizer.encode("", true).empty());
  // The piece of lowest id comes first, U+2581 a, then a split of U+2581 a b; a newline by its
  // byte.
  const json vocab = small_sentencepiece()["model"]["vocab"];
  EXPECT_EQ(tokenizer.encode("ab\n", true), (std::vector<int32_t>{vocab[kSpace + "ab"], 3 + '\n'}));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("ab\n at", true)), "ab\n at");
  const Tokenizer with_bos = Tokenizer::from_sentencepiece(
      small_model(), R"({"add_bos_token": true, "add_eos_token": true})", "t.model");
  EXPECT_EQ(with_bos.encode("", true), (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(with_bos.encode("b<s>", true).back(), 2);
}

std::string mistral(const std::string& data, const char* version) {
  return data + "/tokenizers/mistral/tokenizer.model." + version;
}

const std::vector<std::string> kLlamaPieces = {"<s>", "</s>",   "<unk>",   "[INST]", "[/INST]",
                                               " ",   kSpace,   "<0x0A>",  " <s> ",  "<s><s>",
                                               "▁▁",  " Hello", "</s>Hi ", "<pad>"};

TEST(TokenizerSentencePiece, MistralModelFiles) {
  BILLM_NEED(python, "BILLM_PYTHON");
  BILLM_NEED(data, "BILLM_DATA_DIR");
  const ScratchDirectory v1, v3;
  ReferenceComparison comparison;
  for (const auto& [version, folder] : {std::pair("v1", &v1), std::pair("v3", &v3)}) {
    folder->write("tokenizer.model", read_text_file(mistral(data, version)));
    folder->write("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizer", "legacy": false,
        "add_bos_token": true, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})");
    comparison.add_folder(version, "LlamaTokenizer", folder->path(),
                          real_and_random_texts(data, kLlamaPieces));
  }
  comparison.run(python);
}

// Every key of the files beside tokenizer.model that changes ids.
TEST(TokenizerSentencePiece, FilesBesideTheModel) {
  BILLM_NEED(python, "BILLM_PYTHON");
  BILLM_NEED(data, "BILLM_DATA_DIR");
  struct Case {
    const char *label, *config, *map = nullptr, *added = nullptr;
  };
  const Case cases[] = {
      {"none", nullptr},
      {"class only", R"({"tokenizer_class": "LlamaTokenizerFast"})"},
      {"legacy", R"({"legacy": true, "add_bos_token": true, "add_eos_token": true})"},
      {"nulls", R"({"legacy": null, "add_prefix_space": null, "add_bos_token": null,
                    "bos_token": null, "eos_token": null, "unk_token": null, "pad_token": null})"},
      {"no bos to add", R"({"add_bos_token": true, "bos_token": null, "add_eos_token": true})"},
      {"no prefix", R"({"add_prefix_space": false})"},
      {"prefix", R"({"add_prefix_space": true, "legacy": true})"},
      // huggyllama/llama-7b, meta-llama/Llama-2-7b-hf before they had tokenizer.json
      {"AddedToken objects", R"({"add_bos_token": true, "add_eos_token": false, "legacy": true,
           "bos_token": {"__type": "AddedToken", "content": "<s>", "lstrip": false,
                         "normalized": true, "rstrip": false, "single_word": false},
           "eos_token": {"__type": "AddedToken", "content": "</s>", "lstrip": false,
                         "normalized": true, "rstrip": true, "single_word": false},
           "pad_token": null, "sp_model_kwargs": {}, "clean_up_tokenization_spaces": false})",
       R"({"bos_token": {"content": "<s>", "lstrip": false, "normalized": true, "rstrip": false,
                         "single_word": false}, "unk_token": "<unk>", "pad_token": "<pad>"})"},
      {"added_tokens_decoder", R"({"add_bos_token": true, "added_tokens_decoder": {
           "32001": {"content": "[INST]", "lstrip": true, "rstrip": true, "normalized": false,
                     "single_word": false, "special": false},
           "0": {"content": "<unk>", "normalized": false, "special": true},
           "32000": {"content": "<pad>", "normalized": true, "special": false,
                     "single_word": true}}, "pad_token": "<pad>", "extra_special_tokens": []})",
       R"({"bos_token": "<not read>"})", R"({"<not read>": 32000})"},
      {"a gap in added_tokens_decoder", R"({"added_tokens_decoder": {
           "40000": {"content": "[INST]"}, "32000": {"content": "<pad>", "special": true}}})"},
      {"added_tokens.json", R"({"pad_token": "<pad>", "additional_special_tokens": ["</s>"]})",
       R"({"additional_special_tokens": ["[INST]"], "eos_token": "[/INST]"})",
       R"({"<pad>": 32001, "Hello": 32000, "[/INST]": 32002})"},
      {"extra tokens", R"({"extra_special_tokens": ["[INST]", "Hi"]})",
       R"({"extra_special_tokens": ["[/INST]", "Hi"]})"},
      {"extra null", R"({"additional_special_tokens": null, "extra_special_tokens": null})"},
      {"extra {}", R"({"extra_special_tokens": {}, "add_bos_token": true})"},
      {"other names", R"({"bos_token": "[INST]", "eos_token": "<s>", "unk_token": "<pad>",
                          "mask_token": "Hello", "add_bos_token": true, "add_eos_token": true})"},
  };
  ReferenceComparison comparison;
  std::vector<std::unique_ptr<ScratchDirectory>> folders;
  const auto texts = random_texts(150, kLlamaPieces);
  for (const char* version : {"v1", "v3"}) {
    for (const Case& one : cases) {
      const auto& folder = folders.emplace_back(std::make_unique<ScratchDirectory>());
      folder->write("tokenizer.model", read_text_file(mistral(data, version)));
      if (one.config != nullptr) folder->write("tokenizer_config.json", one.config);
      if (one.map != nullptr) folder->write("special_tokens_map.json", one.map);
      if (one.added != nullptr) folder->write("added_tokens.json", one.added);
      comparison.add_folder(std::string(version) + " " + one.label, "LlamaTokenizer",
                            folder->path(), texts);
    }
  }
  comparison.run(python);
}

// transformers' own conversion, and the same vocabulary in the structure of LLaMA-2's
// tokenizer.json.
TEST(TokenizerSentencePiece, ConvertedToTokenizerJson) {
  BILLM_NEED(python, "BILLM_PYTHON");
  BILLM_NEED(data, "BILLM_DATA_DIR");
  struct Folders {
    ScratchDirectory model, converted;
  };
  const Folders v1, v3;
  const std::pair<const char*, const Folders*> versions[] = {{"v1", &v1}, {"v3", &v3}};
  std::vector<std::string> arguments = {"convert"};
  for (const auto& [version, folders] : versions) {
    folders->model.write("tokenizer.model", read_text_file(mistral(data, version)));
    folders->model.write("tokenizer_config.json",
                         R"({"tokenizer_class": "LlamaTokenizer", "add_bos_token": true})");
    arguments.push_back(folders->model.path().string());
    arguments.push_back(folders->converted.path().string());
  }
  test::run_python(python, "tokenizer_reference.py", arguments);
  ReferenceComparison comparison;
  for (const auto& [version, folders] : versions) {
    const std::string text = read_text_file(folders->converted.path() / "tokenizer.json");
    json tokenizer = parse_json(text);
    comparison.add(std::string("converted ") + version, text, random_texts(500, kLlamaPieces));
    const json like_llama = small_sentencepiece();
    for (const char* key : {"normalizer", "pre_tokenizer", "decoder"}) {
      tokenizer[key] = like_llama[key];
    }
    tokenizer["model"]["unk_token"] = "<unk>";
    comparison.add(std::string("like LLaMA-2 ") + version, dump_json(tokenizer),
                   real_and_random_texts(data, kLlamaPieces));
    // The model file and its conversion are one tokenizer.
    const Tokenizer a = Tokenizer::from_directory(folders->model.path());
    const Tokenizer b = Tokenizer::from_directory(folders->converted.path());
    EXPECT_EQ(a.vocab_size(), b.vocab_size());
    for (const std::string& sample : random_texts(300, kLlamaPieces)) {
      ASSERT_EQ(a.encode(sample, true), b.encode(sample, true)) << sample;
    }
  }
  comparison.run(python);
}

// tokenizer.json wins over tokenizer.model, and that over vocab.json.
TEST(TokenizerSentencePiece, WhichFileIsRead) {
  const ScratchDirectory folder;
  folder.write("vocab.json", R"({"a": 7})");
  folder.write("merges.txt", "");
  EXPECT_EQ(Tokenizer::from_directory(folder.path()).encode("a", false), (std::vector<int32_t>{7}));
  folder.write("tokenizer.model", small_model());
  EXPECT_EQ(Tokenizer::from_directory(folder.path()).vocab_size(),
            static_cast<int64_t>(small_sentencepiece()["model"]["vocab"].size()) + 2);
  folder.write("tokenizer.json", dump_json(small_tokenizer()));
  EXPECT_EQ(Tokenizer::from_directory(folder.path()).vocab_size(), 356);
}

TEST(TokenizerSentencePiece, RefusesWhatItDoesNotSupport) {
  struct Case {
    const char *part, *config;
  };
  const Case cases[] = {
      {"tokenizer_class: expected LlamaTokenizer", R"({"tokenizer_class": "T5Tokenizer"})"},
      {"tokenizer_class", R"({"tokenizer_class": 3})"},
      {"image_token", R"({"image_token": "<image>"})"},
      {"split_special_tokens", R"({"split_special_tokens": true})"},
      {"legacy", R"({"legacy": "yes"})"},
      {"add_bos_token", R"({"add_bos_token": 1})"},
      {"bos_token: expected a token", R"({"add_bos_token": true, "bos_token": ""})"},
      {"eos_token", R"({"eos_token": 2})"},
      {"bos_token.content: missing", R"({"bos_token": {}})"},
      {"extra_special_tokens", R"({"extra_special_tokens": {"a": "b"}})"},
      {"additional_special_tokens[0]", R"({"additional_special_tokens": [1]})"},
      {"added_tokens_decoder.x", R"({"added_tokens_decoder": {"x": {"content": "a"}}})"},
      {"added_tokens_decoder.1", R"({"added_tokens_decoder": {"1": "a"}})"},
      {"added_tokens_decoder", R"({"added_tokens_decoder": []})"},
      {"tokenizer_config.json", "["},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.part);
    expect_bad_input([&] { Tokenizer::from_sentencepiece(small_model(), one.config, "t.model"); },
                     {"t.model", one.part});
  }
  const auto refuse = [](const std::string& model, std::string_view part) {
    SCOPED_TRACE(std::string(part));
    expect_bad_input([&] { Tokenizer::from_sentencepiece(model, "", "t.model"); },
                     {"t.model", part});
  };
  refuse("", "no pieces");
  refuse("IQ== 0\nIg== 1\n", "SentencePiece model");  // LLaMA-3's file of the same name
  refuse(small_model(1), "Unigram");
  refuse(small_model(3), "expected 2 (BPE), got 3");
  refuse(piece("a", 1) + piece("a", 1) + message(2, number(3, 2)), "again");
  refuse(piece("", 1) + message(2, number(3, 2)), "1 to 1024 bytes");
  refuse(piece(std::string(1025, 'a'), 1) + message(2, number(3, 2)), "got 1025");
  refuse(piece("\xff", 1) + message(2, number(3, 2)), "UTF-8");
}

// Damaged files give a tokenizer or an Error, nothing else.
TEST(TokenizerSentencePiece, DamagedModelsGiveErrors) {
  const std::string good = small_model();
  std::mt19937 random(7);
  const auto below = [&](size_t limit) { return random() % limit; };
  int accepted = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string model = good;
    for (size_t left = 1 + below(3); left > 0; --left) {
      const size_t at = below(model.size()), size = std::min(below(40), model.size() - at);
      switch (below(4)) {
        case 0:
          model[at] = static_cast<char>(model[at] ^ (1 << below(8)));
          break;
        case 1:
          model.insert(at, 1, static_cast<char>(below(256)));
          break;
        case 2:
          model.erase(at, size);
          break;
        default:
          model.resize(at);
      }
      if (model.empty()) break;
    }
    try {
      const Tokenizer damaged = Tokenizer::from_sentencepiece(model, "", "t.model");
      ++accepted;
      damaged.decode(damaged.encode("ab <s> st \xc3\xa9 \n x", true), true);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput) << error.message();
      EXPECT_EQ(error.message().find('\n'), std::string::npos) << error.message();
    }
  }
  EXPECT_GT(accepted, 50);
  EXPECT_LT(accepted, 2950);
}

// The whole text is one word here. Generous: sanitizers and a loaded machine pass, quadratic work
// does not.
TEST(TokenizerSentencePiece, LongTextsAreNotQuadratic) {
  const Tokenizer model = Tokenizer::from_sentencepiece(small_model(), "", "t.model");
  const Tokenizer file = Tokenizer::from_json(dump_json(small_sentencepiece()), "t.json");
  for (const char* unit : {"a", "ab st. ", " ", "\n", "\xc3\xa9", "x", "<s>"}) {
    std::string text;
    while (text.size() < 1'000'000) text += unit;
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(model.decode(model.encode(text, false)).size(), text.size() - (*unit == ' '));
    file.encode(text, false);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    EXPECT_LT(seconds.count(), 40) << "a run of " << unit;
  }
}

}  // namespace
}  // namespace billm
