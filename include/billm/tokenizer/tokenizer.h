// BPE tokenizers of HuggingFace folders: byte-level (GPT-2, OPT, LLaMA-3, Qwen, SmolLM, GPT-NeoX,
// OLMo) and SentencePiece's (LLaMA-1/2, Mistral, TinyLlama). What a file asks for and billm does
// not support is an error, never silently different ids. The ids equal, bit for bit,
// - tokenizer.json: those of the `tokenizers` library 0.23 (Tokenizer.from_file), Unicode versions
//   included. (AutoTokenizer of transformers 5 takes only vocabulary and template of
//   LlamaTokenizer's tokenizer.json and sets "first" as its prepend scheme: where such a file
//   prepends by its normalizer, texts that begin with a space differ, as do texts with special
//   tokens in them.)
// - tokenizer.model (SentencePiece's BPE): those of transformers 5.23's LlamaTokenizer, whether the
//   folder's tokenizer_config.json names that class or none. Without "legacy": true the prefix
//   space stands at the start of the text only; BOS and EOS come with add_bos_token and
//   add_eos_token.
// - vocab.json and merges.txt: those of transformers 5.23's GPT2Tokenizer (OPT uses it, too).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace billm {

// What a token gives to decoded text.
enum class TokenKind : uint8_t {
  kText,
  kByte,    // one byte, decoded together with those beside it ("<0x0A>")
  kNoText,  // a special token, or an id that names none
};

class Tokenizer {
 public:
  // Reads the first that is there of tokenizer.json, tokenizer.model, vocab.json with merges.txt;
  // beside the latter two also tokenizer_config.json, special_tokens_map.json, added_tokens.json.
  // `truncation` and `padding` are ignored. Throws Error{kBadInput} if there is none, or if a file
  // is malformed or of a kind not supported.
  static Tokenizer from_directory(const std::filesystem::path& directory);
  // From tokenizer.json's text; `name` stands in error messages.
  static Tokenizer from_json(std::string_view json, const std::string& name);
  // From the bytes of tokenizer.model and of tokenizer_config.json ("": none).
  static Tokenizer from_sentencepiece(std::string_view model, std::string_view config,
                                      const std::string& name);

  ~Tokenizer();
  Tokenizer(Tokenizer&& other) noexcept;
  Tokenizer& operator=(Tokenizer&& other) noexcept;

  // Token ids of `utf8`. With `add_special_tokens` the post-processor's template (BOS, EOS) is
  // applied; special tokens written out in the text are recognized either way. Throws
  // Error{kBadInput} with the byte offset where the text is not UTF-8. Safe to call from several
  // threads: all state of a call lives in the call.
  std::vector<int32_t> encode(std::string_view utf8, bool add_special_tokens) const;

  // Text of `ids`; bytes that are not UTF-8 become U+FFFD. Ids that name no token are left out (as
  // the library does), special tokens too with `skip_special_tokens`.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens = false) const;

  TokenKind kind(int32_t id) const;

  // Number of different tokens, added tokens included (not the largest id + 1).
  int64_t vocab_size() const;

 private:
  struct Impl;
  template <typename Read>
  static Tokenizer make(const std::string& name, Read read);
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace billm
