// The files that tokenizers come in, read as TokenizerSpec: checked, and every kind that billm does
// not support refused as Error{kBadInput}. The authorities are `tokenizers` 0.23 for tokenizer.json
// and `transformers` 5.23 (its LlamaTokenizer and GPT2Tokenizer) for the other files.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "node.h"
#include "spec.h"

namespace billm::tokenizer {

// tokenizer.json's text; messages start with `name`.
TokenizerSpec parse_tokenizer_json(std::string_view json, const std::string& name);
// Its parts that are lists of steps. Reads the normalizer, pre-tokenizer and decoder of `root`;
// sets bpe.byte_level.
void parse_steps(const Node& root, TokenizerSpec& spec);

// `directory`/tokenizer.model, SentencePiece's BPE, with what config_files.h reads.
TokenizerSpec read_sentencepiece(const std::filesystem::path& directory);
// The same from the bytes of the two files; an empty `config` counts as none.
TokenizerSpec parse_sentencepiece(std::string_view model, std::string_view config,
                                  const std::string& name);

// `directory`/vocab.json and merges.txt, GPT-2's byte-level BPE, with what config_files.h reads.
TokenizerSpec read_vocab_merges(const std::filesystem::path& directory);
// The step that byte-level tokenizers cut words with: GPT-2's pattern if `use_regex`.
SplitStep byte_level_step(bool add_prefix_space, bool use_regex);

// {"token": id, ...} with ids that differ, at `node`, into `spec`.
void parse_vocabulary(const Node& node, BpeSpec& spec);
// A line of merges.txt, "left right", into `spec`; `where` stands in messages.
void parse_merge(const std::string& line, const std::string& where, BpeSpec& spec);

}  // namespace billm::tokenizer
