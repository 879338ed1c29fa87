// Any bytes are either a SentencePiece tokenizer.model, which then encodes and decodes, or
// Error{kBadInput}. What lies behind the last NUL byte of an input is the tokenizer_config.json
// beside it.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "billm/base/error.h"
#include "billm/tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view model(reinterpret_cast<const char*>(data), size), config;
  if (const size_t at = model.rfind('\0'); at != std::string_view::npos) {
    config = model.substr(at + 1);
    model = model.substr(0, at);
  }
  try {
    const auto tokenizer = billm::Tokenizer::from_sentencepiece(model, config, "fuzz");
    const auto ids = tokenizer.encode(" It's 12 <s> the [INST]\xc3\xa9\n\xf0\x9f\x98\x80  x", true);
    tokenizer.decode(ids, true);
  } catch (const billm::Error& error) {
    if (error.code() != billm::ErrorCode::kBadInput) __builtin_trap();
  }
  return 0;
}
