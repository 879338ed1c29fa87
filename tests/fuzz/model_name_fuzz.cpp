// Any text as --model is either a directory that exists or an error; without network.
#include <cstdlib>
#include <filesystem>
#include <string>

#include "billm/hub/model_name.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  ::setenv("HF_HUB_OFFLINE", "1", 1);
  ::setenv("HF_ENDPOINT", "http://127.0.0.1:9", 1);
  ::setenv("HF_HUB_CACHE", "/nonexistent/cache", 1);
  ::setenv("BILLM_HOME", "/nonexistent/home", 1);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace billm;
  return fuzz::answer([&] {
    fuzz::require(
        std::filesystem::is_directory(resolve_model(std::string(fuzz::text_of(data, size)))));
  });
}
