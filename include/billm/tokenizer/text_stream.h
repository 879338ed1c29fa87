// Text of tokens that come one by one, in whole characters: what was given out is never taken back,
// and all of it together is what Tokenizer::decode() makes of all ids, special tokens left out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "billm/tokenizer/tokenizer.h"

namespace billm {

class TextStream {
 public:
  // Keeps the reference. The text of `before` is not given out, but what follows it is decoded as
  // its continuation: at the start of a text SentencePiece drops a space.
  explicit TextStream(const Tokenizer& tokenizer, std::span<const int32_t> before = {});

  // What is certain now and was not before; may be empty: the bytes of a character may be in
  // several tokens, and bytes in tokens of their own (SentencePiece's "<0x0A>") wait for the next
  // token of another kind, because a run of them is decoded as a whole.
  std::string push(int32_t id);
  // The rest, at the end. Bytes that make no character are U+FFFD.
  std::string finish();

 private:
  std::string text(size_t end) const;

  const Tokenizer& tokenizer_;
  std::vector<int32_t> ids_;  // those that later text can depend on
  size_t given_ = 0;          // the first so many of them are given out
};

}  // namespace billm
