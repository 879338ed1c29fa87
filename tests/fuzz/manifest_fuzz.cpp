// Any text is either the manifest of a packed model, whose files all lie beside it, or an error.
#include "billm/pack/packed_checkpoint.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace billm;
  return fuzz::answer([&] {
    for (const ManifestFile& file : parse_manifest(fuzz::text_of(data, size), "fuzz")) {
      fuzz::require(file.name.find('/') == std::string::npos);
    }
  });
}
