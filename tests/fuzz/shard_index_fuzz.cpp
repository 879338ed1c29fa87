// Any text is either an index whose files all lie beside it, or an error.
#include "src/checkpoint/shard_index.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace billm;
  return fuzz::answer([&] {
    const auto files = parse_shard_index(fuzz::text_of(data, size), "fuzz");
    fuzz::require(!files.empty());
    for (const auto& [tensor, file] : files) {
      fuzz::require(!file.empty() && file != "." && file != ".." &&
                    file.find('/') == std::string::npos && file.find('\0') == std::string::npos);
    }
  });
}
