// Any text is either a tokenizer.json, which then encodes and decodes, or an error.
#include "billm/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace billm;
  return fuzz::answer([&] {
    const auto tokenizer = Tokenizer::from_json(fuzz::text_of(data, size), "fuzz");
    // Short, since a pattern may backtrack as it likes on it.
    const auto ids = tokenizer.encode("It's 12 <s> abab \xc3\xa9\n\xf0\x9f\x98\x80  x", true);
    tokenizer.decode(ids, true);
  });
}
