// Any text is either a config.json with sizes that make sense, or an error.
#include "billm/checkpoint/config.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace billm;
  return fuzz::answer([&] {
    const auto config = parse_config(fuzz::text_of(data, size), "config.json");
    fuzz::require(config.head_dim > 0 && config.hidden_size > 0 && config.num_key_value_heads > 0);
    fuzz::require(config.num_attention_heads % config.num_key_value_heads == 0);
  });
}
