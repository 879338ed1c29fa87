// Writing safetensors: the same bytes as the reference implementation for the same tensors.
#include <algorithm>
#include <cstring>
#include <tuple>
#include <utility>

#include "billm/base/error.h"
#include "billm/base/json_text.h"
#include "billm/base/sha256.h"
#include "billm/checkpoint/json.h"
#include "billm/checkpoint/safetensors.h"
#include "safetensors_limits.h"

namespace billm {
namespace {

using nlohmann::json;

Error cannot_write(const std::filesystem::path& path, const std::string& reason) {
  return Error(ErrorCode::kFailure, path.string() + ": cannot write: " + reason);
}

// By hand, since nlohmann::json would sort the tensors by name; compact, as the reference writes.
std::string header_text(const std::vector<TensorToWrite>& tensors, const Metadata& metadata,
                        const std::filesystem::path& path) {
  std::string text = "{";
  if (!metadata.empty()) {
    text += "\"__metadata__\":" +
            dump_json(json(std::map<std::string, std::string>(metadata.begin(), metadata.end())));
  }
  int64_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    const auto bytes = tensor_bytes(tensor.dtype, tensor.shape);
    int64_t end = 0;
    if (!bytes || __builtin_add_overflow(offset, *bytes, &end)) {
      throw cannot_write(path, tensor.name + ": no valid size: " + dtype_name(tensor.dtype) + " " +
                                   shape_text(tensor.shape));
    }
    text += text.size() > 1 ? "," : "";
    text += dump_json(json(tensor.name)) + ":{\"dtype\":\"" + dtype_name(tensor.dtype) +
            "\",\"shape\":" + dump_json(json(tensor.shape)) + ",\"data_offsets\":[" +
            std::to_string(offset) + "," + std::to_string(end) + "]}";
    offset = end;
  }
  text += "}";
  text.resize(
      (text.size() + kSafetensorsAlignment - 1) / kSafetensorsAlignment * kSafetensorsAlignment,
      ' ');
  return text;
}

}  // namespace

std::string write_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                              const Metadata& metadata, FileSync sync) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorToWrite& a, const TensorToWrite& b) {
    return std::tie(b.dtype, a.name) < std::tie(a.dtype, b.name);
  });
  // Equal names need not be neighbours here: they may differ in dtype.
  std::vector<std::string_view> names = {"__metadata__"};
  for (const TensorToWrite& tensor : tensors) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) {
    throw cannot_write(path, "tensor name used twice or reserved: " + printable(*twice));
  }
  std::string header;
  try {
    header = header_text(tensors, metadata, path);
  } catch (const json::exception&) {
    throw cannot_write(path, "a tensor name or metadata text is not valid UTF-8");
  }
  if (header.size() > kMaxSafetensorsHeader) {
    throw cannot_write(path, "header of " + std::to_string(header.size()) + " bytes, at most " +
                                 std::to_string(kMaxSafetensorsHeader) + " are allowed");
  }

  AtomicFile file(path);
  Sha256 hash;
  const auto put = [&](std::span<const std::byte> bytes) {
    file.write(bytes);
    hash.update(bytes);
  };
  const uint64_t length = header.size();
  put(std::as_bytes(std::span(&length, 1)));
  put(std::as_bytes(std::span(header)));
  for (const TensorToWrite& tensor : tensors) {
    std::vector<std::byte> made;
    if (tensor.make) made = tensor.make();
    const std::span<const std::byte> bytes =
        tensor.make ? std::span<const std::byte>(made) : tensor.data;
    if (bytes.size() != static_cast<size_t>(*tensor_bytes(tensor.dtype, tensor.shape))) {
      throw cannot_write(path, tensor.name + ": " + std::to_string(bytes.size()) + " bytes for " +
                                   dtype_name(tensor.dtype) + " " + shape_text(tensor.shape));
    }
    put(bytes);
  }
  file.commit(sync);
  return hash.hex();
}

}  // namespace billm
