// The tokenizer of every family billm names: its files in the exact structure of the real ones,
// filled with GPT-2's vocabulary (byte-level) or a small one where the real file is not at hand,
// and compared with HuggingFace's libraries.
#include <gtest/gtest.h>

#include <sstream>

#include "billm/base/json_text.h"
#include "reference.h"

namespace billm {
namespace {

using nlohmann::json;

// tokenizer.json without vocabulary and merges. LLaMA-1/2, Mistral: sentencepiece_test.cpp;
// SmolLM, GPT-NeoX, OLMo: reference_test.cpp.
constexpr const char* kLlama3 = R"json({
  "version": "1.0", "truncation": null, "padding": null,
  "added_tokens": [
    {"id": 50257, "content": "<|begin_of_text|>", "single_word": false, "lstrip": false,
     "rstrip": false, "normalized": false, "special": true},
    {"id": 50258, "content": "<|end_of_text|>", "single_word": false, "lstrip": false,
     "rstrip": false, "normalized": false, "special": true},
    {"id": 50259, "content": "<|eot_id|>", "single_word": false, "lstrip": false,
     "rstrip": false, "normalized": false, "special": true}],
  "normalizer": null,
  "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
    {"type": "Split", "pattern": {"Regex": "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
     "behavior": "Isolated", "invert": false},
    {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]},
  "post_processor": {"type": "Sequence", "processors": [
    {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
    {"type": "TemplateProcessing",
     "single": [{"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}}],
     "pair": [{"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}},
              {"Sequence": {"id": "A", "type_id": 0}},
              {"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 1}},
              {"Sequence": {"id": "B", "type_id": 1}}],
     "special_tokens": {"<|begin_of_text|>": {"id": "<|begin_of_text|>", "ids": [50257],
                                              "tokens": ["<|begin_of_text|>"]}}}]},
  "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
              "use_regex": true},
  "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": true}})json";

// Qwen2, 2.5 and 3 differ in their added tokens only; the last two are not special.
constexpr const char* kQwen = R"json({
  "version": "1.0", "truncation": null, "padding": null,
  "added_tokens": [
    {"id": 50256, "content": "<|endoftext|>", "single_word": false, "lstrip": false,
     "rstrip": false, "normalized": false, "special": true},
    {"id": 50257, "content": "<|im_start|>", "single_word": false, "lstrip": false,
     "rstrip": false, "normalized": false, "special": true},
    {"id": 50258, "content": "<tool_call>", "single_word": false, "lstrip": false,
     "rstrip": false, "normalized": false, "special": false},
    {"id": 50259, "content": "<think>", "single_word": false, "lstrip": false,
     "rstrip": false, "normalized": false, "special": false}],
  "normalizer": {"type": "NFC"},
  "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
    {"type": "Split", "pattern": {"Regex": "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
     "behavior": "Isolated", "invert": false},
    {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}]},
  "post_processor": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
                     "use_regex": false},
  "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
              "use_regex": false},
  "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false}})json";

// EleutherAI/pythia
constexpr const char* kPythia = R"json({
  "version": "1.0", "truncation": null, "padding": null,
  "added_tokens": [
    {"id": 0, "content": "!", "single_word": false, "lstrip": false,
     "rstrip": false, "normalized": false, "special": true},
    {"id": 50257, "content": "  ", "single_word": false, "lstrip": false,
     "rstrip": false, "normalized": true, "special": false},
    {"id": 50258, "content": "    ", "single_word": false, "lstrip": false,
     "rstrip": false, "normalized": true, "special": false}],
  "normalizer": {"type": "NFC"},
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
  "post_processor": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
  "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
  "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false}})json";

TEST(TokenizerFamilies, ByteLevelTokenizerJson) {
  BILLM_NEED(python, "BILLM_PYTHON");
  BILLM_NEED(data, "BILLM_DATA_DIR");
  const json vocab = parse_json(read_text_file(data + "/tokenizers/gpt2/vocab.json"));
  json merges = json::array();
  std::istringstream lines(read_text_file(data + "/tokenizers/gpt2/merges.txt"));
  for (std::string line; std::getline(lines, line);) merges.push_back(line);
  ReferenceComparison comparison;
  const std::string wikitext = load_text("wikitext2", TextSplit::kTest, data).text;
  for (const auto& [label, skeleton] :
       {std::pair("LLaMA-3", kLlama3), std::pair("Qwen", kQwen), std::pair("Pythia", kPythia)}) {
    json tokenizer = parse_json(skeleton);
    tokenizer["model"]["vocab"] = vocab;
    tokenizer["model"]["merges"] = merges;
    auto texts = random_texts(1000, added_contents(tokenizer));
    texts.push_back(wikitext);
    comparison.add(label, dump_json(tokenizer), std::move(texts));
  }
  comparison.run(python);
}

const std::vector<std::string> kByteLevelPieces = {"</s>",          "<s>",    "<pad>", "<unk>",
                                                   "<|endoftext|>", " </s> ", "<A>",   "<B>"};

TEST(TokenizerFamilies, Gpt2Folder) {
  BILLM_NEED(python, "BILLM_PYTHON");
  BILLM_NEED(data, "BILLM_DATA_DIR");
  const std::string folder = data + "/tokenizers/gpt2";
  ReferenceComparison comparison;
  comparison.add_folder("gpt2", "GPT2Tokenizer", folder,
                        real_and_random_texts(data, kByteLevelPieces));
  comparison.run(python);
  // The figure that every paper's perplexity of WikiText-2 with GPT-2 starts from.
  const Tokenizer tokenizer = Tokenizer::from_directory(folder);
  EXPECT_EQ(tokenizer.encode(load_text("wikitext2", TextSplit::kTest, data).text, false).size(),
            287644u);
  EXPECT_EQ(tokenizer.vocab_size(), 50257);
}

// facebook/opt-*: GPT-2's vocabulary behind four tokens of its own, no tokenizer.json.
void write_opt(const ScratchDirectory& folder, const std::string& data) {
  const json gpt2 = parse_json(read_text_file(data + "/tokenizers/gpt2/vocab.json"));
  json vocab = {{"<s>", 0}, {"<pad>", 1}, {"</s>", 2}, {"<unk>", 3}};
  for (const auto& [token, id] : gpt2.items()) {
    if (token != "<|endoftext|>") vocab[token] = id.get<int>() + 4;
  }
  folder.write("vocab.json", dump_json(vocab));
  folder.write("merges.txt", read_text_file(data + "/tokenizers/gpt2/merges.txt"));
  folder.write("tokenizer_config.json", R"({"errors": "replace",
      "unk_token": {"content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": true, "__type": "AddedToken"},
      "bos_token": {"content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": true, "__type": "AddedToken"},
      "eos_token": {"content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": true, "__type": "AddedToken"},
      "add_prefix_space": false, "add_bos_token": true, "special_tokens_map_file": null,
      "name_or_path": "facebook/opt-30b", "tokenizer_class": "GPT2Tokenizer"})");
  folder.write("special_tokens_map.json", R"({
      "bos_token": {"content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": true},
      "eos_token": {"content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": true},
      "unk_token": {"content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": true},
      "pad_token": {"content": "<pad>", "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": true}})");
  folder.write("config.json", R"({"model_type": "opt"})");
}

TEST(TokenizerFamilies, OptFolder) {
  BILLM_NEED(python, "BILLM_PYTHON");
  BILLM_NEED(data, "BILLM_DATA_DIR");
  const ScratchDirectory folder;
  write_opt(folder, data);
  ReferenceComparison comparison;
  // AutoTokenizer is what users of OPT call.
  auto texts = random_texts(2000, kByteLevelPieces);
  texts.push_back(load_text("wikitext2", TextSplit::kTest, data).text);
  comparison.add_folder("opt", "AutoTokenizer", folder.path(), std::move(texts));
  comparison.run(python);
  const Tokenizer tokenizer = Tokenizer::from_directory(folder.path());
  EXPECT_EQ(tokenizer.encode("", true), (std::vector<int32_t>{2}));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("<s>Hello</s>", true)), "</s><s>Hello</s>");
}

// Every key of the files beside vocab.json that changes ids.
TEST(TokenizerFamilies, FilesBesideTheVocabulary) {
  BILLM_NEED(python, "BILLM_PYTHON");
  BILLM_NEED(data, "BILLM_DATA_DIR");
  struct Case {
    const char *config, *map = nullptr, *added = nullptr;
  };
  const Case cases[] = {
      {R"({"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": true})"},
      {R"({"add_bos_token": true, "add_eos_token": true, "bos_token": "<A>", "pad_token": "<B>"})"},
      {R"({"add_bos_token": true, "bos_token": null, "unk_token": null, "eos_token": null})"},
      {R"({"model_max_length": 1024})", R"({"bos_token": "<A>", "pad_token": null,
           "additional_special_tokens": ["<B>"]})",
       R"({"<B>": 50257, "<A>": 50259, "the": 50258, "Hello": 50260})"},
      {R"({"pad_token": "<pad>", "extra_special_tokens": ["<A>"], "added_tokens_decoder": {
           "50256": {"content": "<|endoftext|>", "normalized": true, "special": true},
           "50258": {"content": "<B>", "lstrip": true, "normalized": true},
           "50257": {"content": "world", "single_word": true, "rstrip": true}}})"},
  };
  ReferenceComparison comparison;
  std::vector<std::unique_ptr<ScratchDirectory>> folders;
  for (const Case& one : cases) {
    const auto& folder = folders.emplace_back(std::make_unique<ScratchDirectory>());
    for (const char* name : {"vocab.json", "merges.txt"}) {
      folder->write(name, read_text_file(data + "/tokenizers/gpt2/" + name));
    }
    folder->write("tokenizer_config.json", one.config);
    if (one.map != nullptr) folder->write("special_tokens_map.json", one.map);
    if (one.added != nullptr) folder->write("added_tokens.json", one.added);
    comparison.add_folder(one.config, "GPT2Tokenizer", folder->path(),
                          random_texts(200, kByteLevelPieces));
  }
  comparison.run(python);
}

TEST(TokenizerFamilies, RefusesDamagedFolders) {
  struct Case {
    const char *part, *vocab, *merges, *config = "{}";
  };
  const Case cases[] = {
      {"vocab.json: expected a JSON object", "[]", ""},
      {"vocab.json[\"b\"]: expected an id of its own", R"({"a": 1, "b": 1})", ""},
      {"vocab.json[\"a\"]: expected a token id", R"({"a": -1})", ""},
      {"merges.txt: line 2: expected two tokens", R"({"a": 1})", "#version: 0.2\na b c\n"},
      {"merges.txt: line 1: expected two tokens", R"({"a": 1})", "\n"},
      {"\"ab\" is not in the vocabulary", R"({"a": 1, "b": 2})", "a b\n"},
      {"tokenizer_class: expected GPT2Tokenizer", R"({"a": 1})", "",
       R"({"tokenizer_class": "Qwen2Tokenizer"})"},
      {"model_type: expected", R"({"a": 1})", "", nullptr},
      {"tokenizer_config.json", R"({"a": 1})", "", "{"},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.part);
    const ScratchDirectory folder;
    folder.write("vocab.json", one.vocab);
    folder.write("merges.txt", one.merges);
    if (one.config != nullptr) {
      folder.write("tokenizer_config.json", one.config);
    } else {
      folder.write("config.json", R"({"model_type": "qwen2"})");
    }
    expect_bad_input([&] { Tokenizer::from_directory(folder.path()); }, {one.part});
  }
}

}  // namespace
}  // namespace billm
