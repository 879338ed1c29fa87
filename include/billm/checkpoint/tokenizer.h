// Byte-level BPE tokenizers (GPT-2, LLaMA-3, Qwen, SmolLM, OLMo ...) read from tokenizer.json.
// The ids equal those of HuggingFace's `tokenizers` library 0.23 bit for bit, its Unicode versions
// included; a file that asks for something else (SentencePiece models, other normalizers, regular
// expressions outside the supported part) is an error, never silently different ids.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace billm {

class Tokenizer {
 public:
  // Reads `directory`/tokenizer.json. Its `truncation` and `padding` are ignored, as transformers
  // does. Throws Error{kBadInput} if the file is missing, malformed or of a kind not supported.
  static Tokenizer from_directory(const std::filesystem::path& directory);
  // The same from the file's text; `name` stands in error messages.
  static Tokenizer from_json(std::string_view json, const std::string& name);

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

  // Number of different tokens, added tokens included (not the largest id + 1).
  int64_t vocab_size() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace billm
