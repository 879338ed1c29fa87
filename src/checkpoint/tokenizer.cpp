// Tokenizer: text -> added tokens cut out -> normalized -> cut into words -> byte pairs merged.
// The parts lie beside this file: tokenizer_json, _added, _unicode, _split, _regex, _bpe.
#include "billm/checkpoint/tokenizer.h"

#include <optional>
#include <utility>

#include "billm/base/error.h"
#include "billm/base/file.h"
#include "tokenizer_added.h"
#include "tokenizer_bpe.h"
#include "tokenizer_json.h"
#include "tokenizer_split.h"
#include "tokenizer_unicode.h"

namespace billm {

using tokenizer::AddedTokens;

struct Tokenizer::Impl {
  // What decode() needs of a token.
  struct Decoded {
    std::string bytes;
    bool special;
  };

  explicit Impl(tokenizer::TokenizerSpec spec)
      : added(spec),
        bpe(spec.bpe),
        normalizers(std::move(spec.normalizers)),
        steps(std::move(spec.steps)),
        prefix_ids(std::move(spec.prefix_ids)),
        suffix_ids(std::move(spec.suffix_ids)),
        size(static_cast<int64_t>(spec.bpe.vocab.size()) + added.count_new()) {
    decoded.reserve(spec.bpe.vocab.size() + spec.added.size());
    for (const auto& [token, id] : spec.bpe.vocab) set_decoded(id, token);
    for (const auto& [id, entry] : added.by_id()) set_decoded(id, entry.pattern);
  }

  // A token with a character outside the byte-level alphabet stands for its own UTF-8.
  void set_decoded(int32_t id, const std::string& token) {
    auto bytes = tokenizer::symbols_to_bytes(token);
    decoded[id] = {bytes ? std::move(*bytes) : token, added.is_special(token)};
  }

  void encode_normalized(std::string_view text, tokenizer::RegexScratch& scratch,
                         tokenizer::WordCache& cache, std::vector<int32_t>& ids) const {
    for (const AddedTokens::Piece& piece : added.find(text, true)) {
      if (piece.id >= 0) {
        ids.push_back(piece.id);
        continue;
      }
      tokenizer::pre_tokenize(steps, text.substr(piece.begin, piece.end - piece.begin), scratch,
                              [&](std::string_view word) { bpe.encode(word, cache, ids); });
    }
  }

  AddedTokens added;
  tokenizer::Bpe bpe;
  std::vector<tokenizer::NormalForm> normalizers;
  std::vector<tokenizer::SplitStep> steps;
  std::vector<int32_t> prefix_ids, suffix_ids;
  int64_t size;
  std::unordered_map<int32_t, Decoded> decoded;
};

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&& other) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&& other) noexcept = default;

Tokenizer Tokenizer::from_directory(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "tokenizer.json";
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    throw bad_input(path.string() + ": expected the model's tokenizer, found no such file",
                    "billm reads byte-level BPE tokenizers from tokenizer.json; for another kind "
                    "give pre-tokenized text as a .npy file");
  }
  return from_json(read_text_file(path), path.string());
}

Tokenizer Tokenizer::from_json(std::string_view json, const std::string& name) {
  tokenizer::TokenizerSpec spec = tokenizer::parse_tokenizer_json(json, name);
  try {
    return Tokenizer(std::make_unique<Impl>(std::move(spec)));
  } catch (const Error& error) {
    throw Error(error.code(), name + ": " + error.message(), error.hint());
  }
}

std::vector<int32_t> Tokenizer::encode(std::string_view utf8, bool add_special_tokens) const {
  if (const size_t bad = tokenizer::find_invalid_utf8(utf8); bad != std::string_view::npos) {
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
    if (impl_->normalizers.empty()) {
      impl_->encode_normalized(text, scratch, cache, ids);
      continue;
    }
    std::string normalized(text);
    for (const auto form : impl_->normalizers) normalized = tokenizer::normalize(form, normalized);
    impl_->encode_normalized(normalized, scratch, cache, ids);
  }
  if (add_special_tokens) {
    ids.insert(ids.end(), impl_->suffix_ids.begin(), impl_->suffix_ids.end());
  }
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::string bytes;
  for (const int32_t id : ids) {
    const auto found = impl_->decoded.find(id);
    if (found == impl_->decoded.end() || (skip_special_tokens && found->second.special)) continue;
    bytes += found->second.bytes;
  }
  return tokenizer::replace_invalid_utf8(bytes);
}

int64_t Tokenizer::vocab_size() const { return impl_->size; }

}  // namespace billm
