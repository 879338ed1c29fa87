// TensorFile: named tensors as views into one mapped file, whatever its container is. What a
// container is, only its parser knows: parse_safetensors (safetensors.h), parse_torch_file
// (torch_file.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "billm/base/file.h"
#include "billm/checkpoint/dtype.h"

namespace billm {

// A tensor inside a mapped file: row-major, dense. `data` may be unaligned: copy with memcpy or
// convert_to_float.
struct TensorView {
  DType dtype;
  std::vector<int64_t> shape;  // empty: a scalar
  std::span<const std::byte> data;

  int64_t elements() const;  // product of the shape; checked when the view was made
};

using TensorMap = std::map<std::string, TensorView, std::less<>>;
using Metadata = std::map<std::string, std::string, std::less<>>;

struct TensorContent {
  TensorMap tensors;
  Metadata metadata;  // empty where the container has none
};

// Checks and indexes the bytes of a whole file, which must outlive the result; reads no tensor.
// `file` starts every message. Throws Error{kBadInput}: "FILE: what: expected ..., got ...".
using TensorFileParser = TensorContent (*)(std::span<const std::byte> bytes,
                                           const std::string& file);

// Mapped and checked when constructed. Movable; views survive the move.
class TensorFile {
 public:
  TensorFile(const std::filesystem::path& path, TensorFileParser parse);

  const std::filesystem::path& path() const { return file_.path(); }
  const TensorMap& tensors() const { return content_.tensors; }
  const Metadata& metadata() const { return content_.metadata; }
  const TensorView* find(std::string_view name) const;  // nullptr if absent
  // The pages of this tensor are not needed now; reading it again is allowed, and slower.
  void release(std::string_view name) const;

 private:
  MappedFile file_;
  TensorContent content_;
};

}  // namespace billm
