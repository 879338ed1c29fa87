// Any bytes are either a safetensors file, whose tensors then lie inside it, or an error. Half of
// the mutants get a header length that fits again, or nearly all would end there.
#include <cstring>

#include "billm/checkpoint/safetensors.h"
#include "tests/fuzz/fuzz.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  const size_t brace = billm::fuzz::text_of(data, size).rfind("}}");
  if (seed % 2 == 0 && brace != std::string_view::npos && brace + 2 >= sizeof(uint64_t)) {
    const uint64_t length = brace + 2 - sizeof(uint64_t);
    std::memcpy(data, &length, sizeof(length));
  }
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace billm;
  return fuzz::answer([&] {
    const auto content = parse_safetensors(std::as_bytes(std::span(data, size)), "fuzz");
    for (const auto& [name, view] : content.tensors) {
      fuzz::require(tensor_bytes(view.dtype, view.shape) == static_cast<int64_t>(view.data.size()));
      fuzz::read_all(view.data);
    }
  });
}
