// Any bytes are either an array of token ids or an error.
#include "billm/checkpoint/npy.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace billm;
  return fuzz::answer([&] {
    const TokenMatrix tokens = parse_npy(std::as_bytes(std::span(data, size)), "fuzz");
    fuzz::require(tokens.rows > 0 && tokens.cols > 0);
    fuzz::require(tokens.values.size() == static_cast<size_t>(tokens.rows * tokens.cols));
    for (const int32_t id : tokens.values) fuzz::require(id >= 0);
  });
}
