// Any vocab.json, merges.txt and the configuration files beside them, divided by NUL bytes in an
// input, are either a tokenizer, which then encodes and decodes, or an error.
#include <filesystem>
#include <fstream>
#include <string>

#include "billm/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace billm;
  static const std::filesystem::path directory = fuzz::scratch_directory();
  std::string_view rest = fuzz::text_of(data, size);
  for (const char* name : {"vocab.json", "merges.txt", "tokenizer_config.json",
                           "special_tokens_map.json", "added_tokens.json"}) {
    const size_t end = std::min(rest.find('\0'), rest.size());
    const std::string_view part = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const std::filesystem::path path = directory / name;
    std::filesystem::remove(path);
    if (!part.empty()) std::ofstream(path, std::ios::binary) << part;
  }
  return fuzz::answer([&] {
    const auto tokenizer = Tokenizer::from_directory(directory);
    const auto ids = tokenizer.encode("It's 12 <s> abab \xc3\xa9\n\xf0\x9f\x98\x80  x", true);
    tokenizer.decode(ids, true);
  });
}
