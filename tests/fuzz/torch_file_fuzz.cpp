// Any bytes are either a file of torch.save, whose tensors then lie inside it, or an error.
// data.pkl is guarded by a checksum here: state_dict_pickle_fuzz.cpp has the pickle by itself.
#include "billm/checkpoint/torch_file.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace billm;
  return fuzz::answer([&] {
    const auto content = parse_torch_file(std::as_bytes(std::span(data, size)), "fuzz");
    for (const auto& [name, view] : content.tensors) {
      fuzz::require(tensor_bytes(view.dtype, view.shape) == static_cast<int64_t>(view.data.size()));
      fuzz::read_all(view.data);
    }
  });
}
