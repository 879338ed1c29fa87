// Any bytes are either the pickle of a state dict or an error; nothing is run.
#include "src/checkpoint/state_dict_pickle.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace billm;
  return fuzz::answer([&] {
    for (const auto& [name, tensor] :
         read_state_dict(std::as_bytes(std::span(data, size)), "fuzz")) {
      fuzz::require(tensor.offset_bytes >= 0 && tensor.storage_bytes >= 0);
      fuzz::require(tensor_bytes(tensor.dtype, tensor.shape).has_value());
    }
  });
}
