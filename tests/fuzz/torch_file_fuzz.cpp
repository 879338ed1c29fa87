// Any bytes are either a file of torch.save, whose tensors then lie inside it, or an error.
//
// Sizes and offsets stand in several places of an archive, and data.pkl has a checksum: blind
// mutations hardly ever come past them. So half of the mutants are repaired: their records at the
// end say where things are, sizes agree with each other, and the checksums are the 0 that means
// none.
#include <cstring>
#include <vector>

#include "billm/checkpoint/torch_file.h"
#include "tests/fuzz/fuzz.h"

namespace {

// Offsets of fields in the records: src/checkpoint/stored_zip.cpp.
class Archive {
 public:
  Archive(uint8_t* data, size_t size) : data_(data), size_(size) {}

  void repair() {
    const std::vector<size_t> locals = find("PK\3\4"), centrals = find("PK\1\2");
    const std::vector<size_t> ends = find("PK\5\6"), ends64 = find("PK\6\6"),
                              locators = find("PK\6\7");
    if (centrals.empty() || ends.empty()) return;
    for (size_t i = 0; i < centrals.size(); ++i) {
      set<uint32_t>(centrals[i] + 16, 0);  // CRC
      set<uint32_t>(centrals[i] + 20, get<uint32_t>(centrals[i] + 24));
      if (i < locals.size()) set<uint32_t>(centrals[i] + 42, static_cast<uint32_t>(locals[i]));
    }
    const auto count = centrals.size(), first = centrals.front();
    const size_t end = ends.back(), last = ends64.empty() ? end : ends64.back();
    set<uint16_t>(end + 8, static_cast<uint16_t>(count));
    set<uint16_t>(end + 10, static_cast<uint16_t>(count));
    set<uint32_t>(end + 12, static_cast<uint32_t>(last - first));
    set<uint32_t>(end + 16, static_cast<uint32_t>(first));
    if (ends64.empty() || locators.empty()) return;
    for (const size_t place : {24, 32}) set<uint64_t>(last + place, count);
    set<uint64_t>(last + 40, last - first);
    set<uint64_t>(last + 48, first);
    set<uint64_t>(locators.back() + 8, last);
  }

 private:
  std::vector<size_t> find(const char* signature) const {
    std::vector<size_t> places;
    for (size_t i = 0; i + 4 <= size_; ++i) {
      if (std::memcmp(data_ + i, signature, 4) == 0) places.push_back(i);
    }
    return places;
  }
  template <typename Number>
  void set(size_t place, Number value) {
    if (place + sizeof(value) <= size_) std::memcpy(data_ + place, &value, sizeof(value));
  }
  template <typename Number>
  Number get(size_t place) const {
    Number value = 0;
    if (place + sizeof(value) <= size_) std::memcpy(&value, data_ + place, sizeof(value));
    return value;
  }

  uint8_t* data_;
  size_t size_;
};

}  // namespace

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  if (seed % 2 == 0) Archive(data, size).repair();
  return size;
}

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
