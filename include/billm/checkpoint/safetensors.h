// The safetensors container: reading with every check of the reference implementation, and writing.
//
//   byte 0      N, unsigned 64-bit little-endian: length of the header
//   byte 8      header: a JSON object, may be padded with spaces
//                 "<tensor>": {"dtype": "F16", "shape": [2, 3], "data_offsets": [begin, end]}
//                 "__metadata__": {"<key>": "<text>"}
//   byte 8 + N  data; tensors back to back, no hole, no overlap, up to the last byte of the file
//
// Little-endian, row-major.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "billm/base/file.h"
#include "billm/checkpoint/dtype.h"
#include "billm/checkpoint/tensor_file.h"

namespace billm {

// A TensorFileParser. Allocates only in proportion to the header, and that only after its length
// was checked against the bytes.
TensorContent parse_safetensors(std::span<const std::byte> bytes, const std::string& file);

class SafetensorsFile : public TensorFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path)
      : TensorFile(path, parse_safetensors) {}
};

// A tensor to be written: its bytes, or a function that makes them when their turn comes, so that
// only one tensor at a time is held in memory. `make`, if set, wins over `data`.
struct TensorToWrite {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  std::span<const std::byte> data = {};
  std::function<std::vector<std::byte>()> make = nullptr;
};

// Writes the file, whole or not at all (`sync`: see AtomicFile), and returns its SHA-256 (64 hex
// digits). The bytes depend on the arguments only, not on the order of `tensors`: metadata stands
// sorted by key, tensors by descending dtype, then by name, as the reference does; the data starts
// at a multiple of 8 bytes. Throws Error{kFailure} on a failing disk, and on arguments that are no
// valid file (a name twice, bytes that do not fit dtype and shape, text that is not UTF-8).
std::string write_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                              const Metadata& metadata = {}, FileSync sync = FileSync::kYes);

}  // namespace billm
