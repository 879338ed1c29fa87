// Tokenizer: text -> added tokens cut out -> normalized -> cut into words -> pairs merged.
// The parts lie beside this file: readers.h (the files), added, normalize, split, bpe, decode.
#include "billm/tokenizer/tokenizer.h"

#include <utility>

#include "added.h"
#include "billm/base/error.h"
#include "billm/base/file.h"
#include "billm/base/utf8.h"
#include "bpe.h"
#include "readers.h"

namespace billm {

using tokenizer::AddedTokens;

struct Tokenizer::Impl {
  struct Token {
    std::string text;
    bool special = false;
  };

  explicit Impl(tokenizer::TokenizerSpec spec)
      : added(spec),
        bpe(spec.bpe),
        normalizers(std::move(spec.normalizers)),
        steps(std::move(spec.steps)),
        decoders(std::move(spec.decoders)),
        prefix_ids(std::move(spec.prefix_ids)),
        suffix_ids(std::move(spec.suffix_ids)),
        size(static_cast<int64_t>(spec.bpe.vocab.size()) + added.count_new()) {
    tokens.reserve(spec.bpe.vocab.size() + spec.added.size());
    for (const auto& [text, id] : spec.bpe.vocab) set_token(id, text);
    for (const auto& [id, entry] : added.by_id()) set_token(id, entry.pattern);
  }

  void set_token(int32_t id, const std::string& text) {
    tokens[id] = {text, added.is_special(text)};
  }

  // `at_start`: nothing of the whole text lies before `text`.
  void encode_normalized(std::string_view text, bool at_start, tokenizer::RegexScratch& scratch,
                         tokenizer::WordCache& cache, std::vector<int32_t>& ids) const {
    for (const AddedTokens::Piece& piece : added.find(text, true)) {
      if (piece.id >= 0) {
        ids.push_back(piece.id);
        continue;
      }
      tokenizer::pre_tokenize(steps, text.substr(piece.begin, piece.end - piece.begin),
                              at_start && piece.begin == 0, scratch,
                              [&](std::string_view word) { bpe.encode(word, cache, ids); });
    }
  }

  AddedTokens added;
  tokenizer::Bpe bpe;
  std::vector<tokenizer::NormalizeStep> normalizers;
  std::vector<tokenizer::SplitStep> steps;
  std::vector<tokenizer::DecodeStep> decoders;
  std::vector<int32_t> prefix_ids, suffix_ids;
  int64_t size;
  std::unordered_map<int32_t, Token> tokens;
};

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&& other) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&& other) noexcept = default;

template <typename Read>
Tokenizer Tokenizer::make(const std::string& name, Read read) {
  tokenizer::TokenizerSpec spec = read();
  try {
    return Tokenizer(std::make_unique<Impl>(std::move(spec)));
  } catch (const Error& error) {
    throw Error(error.code(), name + ": " + error.message(), error.hint());
  }
}

Tokenizer Tokenizer::from_directory(const std::filesystem::path& directory) {
  const auto has = [&](const char* name) {
    std::error_code error;
    return std::filesystem::exists(directory / name, error);
  };
  if (has("tokenizer.json")) {
    const std::filesystem::path path = directory / "tokenizer.json";
    return from_json(read_text_file(path), path.string());
  }
  if (has("tokenizer.model")) {
    return make((directory / "tokenizer.model").string(),
                [&] { return tokenizer::read_sentencepiece(directory); });
  }
  if (has("vocab.json") && has("merges.txt")) {
    return make((directory / "vocab.json").string(),
                [&] { return tokenizer::read_vocab_merges(directory); });
  }
  throw bad_input(directory.string() +
                      ": expected the model's tokenizer (tokenizer.json, tokenizer.model, or "
                      "vocab.json and merges.txt), found no such file",
                  "copy these files from the model's page; or give pre-tokenized text as a .npy "
                  "file");
}

Tokenizer Tokenizer::from_json(std::string_view json, const std::string& name) {
  return make(name, [&] { return tokenizer::parse_tokenizer_json(json, name); });
}

Tokenizer Tokenizer::from_sentencepiece(std::string_view model, std::string_view config,
                                        const std::string& name) {
  return make(name, [&] { return tokenizer::parse_sentencepiece(model, config, name); });
}

std::vector<int32_t> Tokenizer::encode(std::string_view utf8, bool add_special_tokens) const {
  if (const size_t bad = find_invalid_utf8(utf8); bad != std::string_view::npos) {
    throw bad_input("text: expected UTF-8, got an invalid byte at offset " + std::to_string(bad));
  }
  std::vector<int32_t> ids;
  if (add_special_tokens) ids = impl_->prefix_ids;
  tokenizer::RegexScratch scratch;
  tokenizer::WordCache cache;
  for (const AddedTokens::Piece& piece : impl_->added.find(utf8, false)) {
    if (piece.id >= 0) {
      ids.push_back(piece.id);
      continue;
    }
    const std::string_view text = utf8.substr(piece.begin, piece.end - piece.begin);
    const bool at_start = piece.begin == 0;
    if (impl_->normalizers.empty()) {
      impl_->encode_normalized(text, at_start, scratch, cache, ids);
    } else {
      const std::string normalized = tokenizer::normalize(impl_->normalizers, text);
      impl_->encode_normalized(normalized, at_start, scratch, cache, ids);
    }
  }
  if (add_special_tokens) {
    ids.insert(ids.end(), impl_->suffix_ids.begin(), impl_->suffix_ids.end());
  }
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    const auto found = impl_->tokens.find(id);
    if (found == impl_->tokens.end() || (skip_special_tokens && found->second.special)) continue;
    tokens.push_back(found->second.text);
  }
  return tokenizer::decode(impl_->decoders, std::move(tokens));
}

TokenKind Tokenizer::kind(int32_t id) const {
  const auto found = impl_->tokens.find(id);
  if (found == impl_->tokens.end() || found->second.special) return TokenKind::kNoText;
  return tokenizer::is_byte(impl_->decoders, found->second.text) ? TokenKind::kByte
                                                                 : TokenKind::kText;
}

int64_t Tokenizer::vocab_size() const { return impl_->size; }

}  // namespace billm
