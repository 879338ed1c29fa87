// Any bytes are either a tokenizer.json, which then encodes and decodes, or Error{kBadInput}.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "billm/base/error.h"
#include "billm/tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto tokenizer = billm::Tokenizer::from_json(
        std::string_view(reinterpret_cast<const char*>(data), size), "fuzz");
    // Short, since a pattern may backtrack as it likes on it.
    const auto ids = tokenizer.encode("It's 12 <s> abab \xc3\xa9\n\xf0\x9f\x98\x80  x", true);
    tokenizer.decode(ids, true);
  } catch (const billm::Error& error) {
    if (error.code() != billm::ErrorCode::kBadInput) __builtin_trap();
  }
  return 0;
}
