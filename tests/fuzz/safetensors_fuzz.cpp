// Any bytes are either a safetensors file, whose tensors then lie inside it, or Error{kBadInput}.
#include <cstddef>
#include <cstdint>
#include <span>

#include "billm/base/error.h"
#include "billm/checkpoint/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto content = billm::parse_safetensors(std::as_bytes(std::span(data, size)), "fuzz");
    unsigned sum = 0;
    for (const auto& [name, view] : content.tensors) {
      if (billm::tensor_bytes(view.dtype, view.shape) != static_cast<int64_t>(view.data.size())) {
        __builtin_trap();
      }
      for (const std::byte value : view.data) sum += static_cast<unsigned>(value);
    }
    volatile unsigned keep = sum;  // the bytes must really be read
    (void)keep;
  } catch (const billm::Error& error) {
    if (error.code() != billm::ErrorCode::kBadInput) __builtin_trap();
  }
  return 0;
}
