// Any text is either a config.json with sizes that make sense, or Error{kBadInput}.
#include <cstddef>
#include <cstdint>

#include "billm/base/error.h"
#include "billm/checkpoint/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto config =
        billm::parse_config({reinterpret_cast<const char*>(data), size}, "config.json");
    if (config.head_dim <= 0 || config.hidden_size <= 0 || config.num_key_value_heads <= 0 ||
        config.num_attention_heads % config.num_key_value_heads != 0) {
      __builtin_trap();
    }
  } catch (const billm::Error& error) {
    if (error.code() != billm::ErrorCode::kBadInput) __builtin_trap();
  }
  return 0;
}
