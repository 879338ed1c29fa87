// Any bytes are either a SentencePiece tokenizer.model, which then encodes and decodes, or an
// error. What lies behind the last NUL byte of an input is the tokenizer_config.json beside it.
#include "billm/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace billm;
  std::string_view model = fuzz::text_of(data, size), config;
  if (const size_t at = model.rfind('\0'); at != std::string_view::npos) {
    config = model.substr(at + 1);
    model = model.substr(0, at);
  }
  return fuzz::answer([&] {
    const auto tokenizer = Tokenizer::from_sentencepiece(model, config, "fuzz");
    const auto ids = tokenizer.encode(" It's 12 <s> the [INST]\xc3\xa9\n\xf0\x9f\x98\x80  x", true);
    tokenizer.decode(ids, true);
  });
}
