// Any bytes as a file of C4's documents (gzip, a JSON object a line) are either a text or an error;
// a first byte 'j' has the rest read as the plain lines of a .jsonl file.
#include <filesystem>
#include <fstream>

#include "billm/hub/texts.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace billm;
  static const std::filesystem::path directory = fuzz::scratch_directory();
  const bool plain = size > 0 && data[0] == 'j';
  std::filesystem::remove_all(directory / "c4");
  std::filesystem::create_directories(directory / "c4" / "en");
  const std::filesystem::path file =
      directory / "c4" / (plain ? "a.jsonl" : "en/c4-train.00000-of-01024.json.gz");
  std::ofstream(file, std::ios::binary) << fuzz::text_of(data, size).substr(plain ? 1 : 0);
  return fuzz::answer([&] { load_text("c4", TextSplit::kCalibration, directory); });
}
