// Reading safetensors: the checks of the reference implementation (huggingface/safetensors), in its
// order. See include/billm/checkpoint/safetensors.h for the layout.
#include "billm/checkpoint/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <tuple>
#include <utility>

#include "billm/base/error.h"
#include "billm/base/json_text.h"
#include "billm/checkpoint/json.h"
#include "safetensors_limits.h"

namespace billm {
namespace {

using nlohmann::json;

struct Entry {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  uint64_t begin, end;  // bytes, from the start of the data
};

std::string in_quotes(std::string_view text) {
  std::string result(1, '"');
  return result.append(printable(text)).append(1, '"');
}

// What a wrong value is, short enough for a message.
std::string describe(const json& value) {
  if (value.is_string()) return in_quotes(value.get_ref<const std::string&>());
  if (value.is_number()) return dump_json(value);
  if (value.is_structured()) {
    return std::string(value.is_array() ? "an array" : "an object") + " of " +
           std::to_string(value.size());
  }
  return dump_json(value);  // true, false, null
}

const json& member(const json& info, const char* key, const std::string& where) {
  const auto found = info.find(key);
  if (found == info.end()) {
    throw bad_input(where + ": expected the keys dtype, shape and data_offsets, got no " + key);
  }
  return *found;
}

DType parse_entry_dtype(const json& value, const std::string& where) {
  if (value.is_string()) {
    if (const auto dtype = parse_dtype(value.get_ref<const std::string&>())) return *dtype;
  }
  std::string known;
  for (const DTypeRow& row : dtype_table())
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  throw bad_input(where + ": dtype: expected one of " + known + ", got " + describe(value));
}

std::vector<int64_t> parse_shape(const json& value, const std::string& where) {
  if (!value.is_array()) {
    throw bad_input(where + ": shape: expected an array of sizes, got " + describe(value));
  }
  std::vector<int64_t> shape;
  shape.reserve(value.size());
  for (const json& size : value) {
    if (!size.is_number_unsigned() ||
        size.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()}) {
      throw bad_input(where + ": shape: expected integers from 0 to 2^63 - 1, got " +
                      describe(size));
    }
    shape.push_back(size.get<int64_t>());
  }
  return shape;
}

Entry parse_entry(const std::string& name, const json& info, const std::string& file) {
  const std::string where = file + ": " + printable(name);
  if (!info.is_object()) {
    throw bad_input(where + ": expected an object with dtype, shape and data_offsets, got " +
                    describe(info));
  }
  Entry entry;
  entry.name = name;
  entry.dtype = parse_entry_dtype(member(info, "dtype", where), where);
  entry.shape = parse_shape(member(info, "shape", where), where);
  const json& offsets = member(info, "data_offsets", where);
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    throw bad_input(where + ": data_offsets: expected two non-negative integers, got " +
                    describe(offsets));
  }
  entry.begin = offsets[0].get<uint64_t>();
  entry.end = offsets[1].get<uint64_t>();
  return entry;
}

Metadata parse_metadata(const json& value, const std::string& file) {
  const std::string where = file + ": __metadata__";
  if (!value.is_object()) {
    throw bad_input(where + ": expected an object of strings, got " + describe(value));
  }
  Metadata metadata;
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) {
      throw bad_input(where + ": " + printable(key) + ": expected a string, got " + describe(text));
    }
    metadata.emplace(key, text.get_ref<const std::string&>());
  }
  return metadata;
}

// The header's text, once its length is known to lie inside the file.
std::string_view header_text(std::span<const std::byte> bytes, const std::string& file) {
  if (bytes.size() < kSafetensorsPrefix) {
    throw bad_input(file + ": size: expected at least " + std::to_string(kSafetensorsPrefix) +
                    " bytes, got " + std::to_string(bytes.size()));
  }
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  if (length > kMaxSafetensorsHeader) {
    throw bad_input(file + ": header length: expected at most " +
                    std::to_string(kMaxSafetensorsHeader) + ", got " + std::to_string(length));
  }
  if (length > bytes.size() - kSafetensorsPrefix) {
    throw bad_input(file + ": header length: expected at most the " +
                    std::to_string(bytes.size() - kSafetensorsPrefix) +
                    " bytes that follow it, got " + std::to_string(length));
  }
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + kSafetensorsPrefix,
                                length);
  if (header.empty() || header.front() != '{') {
    throw bad_input(file + ": header: expected JSON that starts with '{', got " +
                    (header.empty() ? "an empty header" : in_quotes(header.substr(0, 1))));
  }
  return header;
}

// Tensors, sorted by offset, must cover the data from its first byte to its last.
void check_layout(const std::vector<Entry>& entries, uint64_t header_bytes, uint64_t file_bytes,
                  const std::string& file) {
  uint64_t next = 0;
  for (const Entry& entry : entries) {
    const std::string where = file + ": " + printable(entry.name);
    const std::string range =
        std::string("[") + std::to_string(entry.begin) + ", " + std::to_string(entry.end) + "]";
    if (entry.end < entry.begin) {
      throw bad_input(where + ": data_offsets: expected begin <= end, got " + range);
    }
    if (entry.begin != next) {
      throw bad_input(where + ": data_offsets: expected to begin at " + std::to_string(next) +
                      " (no hole, no overlap), got " + range);
    }
    const std::string what = std::string(dtype_name(entry.dtype)) + " " + shape_text(entry.shape);
    const auto bytes = tensor_bytes(entry.dtype, entry.shape);
    if (!bytes) {
      throw bad_input(where + ": shape: expected a size of whole bytes below 2^60, got " + what);
    }
    if (entry.end - entry.begin != static_cast<uint64_t>(*bytes)) {
      throw bad_input(where + ": data_offsets: expected " + std::to_string(*bytes) + " bytes for " +
                      what + ", got " + std::to_string(entry.end - entry.begin));
    }
    next = entry.end;
  }
  const uint64_t data_bytes = file_bytes - kSafetensorsPrefix - header_bytes;
  if (next != data_bytes) {
    throw bad_input(file + ": size: expected " + std::to_string(next) +
                    " bytes of data after the header, got " + std::to_string(data_bytes));
  }
}

}  // namespace

TensorContent parse_safetensors(std::span<const std::byte> bytes, const std::string& file) {
  const std::string_view text = header_text(bytes, file);
  const json header = parse_json_object(text, file + ": header");
  TensorContent content;
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") {
      content.metadata = parse_metadata(value, file);
    } else {
      entries.push_back(parse_entry(name, value, file));
    }
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  check_layout(entries, text.size(), bytes.size(), file);
  const auto data = bytes.subspan(kSafetensorsPrefix + text.size());
  for (Entry& entry : entries) {
    content.tensors.emplace(std::move(entry.name),
                            TensorView{entry.dtype, std::move(entry.shape),
                                       data.subspan(entry.begin, entry.end - entry.begin)});
  }
  return content;
}

}  // namespace billm
