// Writing safetensors: byte layout, round trip, what is refused, and the Python library as a judge.
#include <algorithm>
#include <numeric>
#include <vector>

#include "billm/base/sha256.h"
#include "billm/checkpoint/safetensors.h"
#include "testing.h"

namespace billm {
namespace {

std::vector<std::byte> counted(size_t size) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 7 + size);
  return bytes;
}

std::string read_all(const std::filesystem::path& path) { return read_text_file(path); }

uint64_t header_length(const std::string& file) {
  uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  return length;
}

TEST(SafetensorsWriter, ExactBytes) {
  const ScratchDirectory scratch;
  const auto path = scratch.path() / "x.safetensors";
  const auto two = counted(2), eight = counted(8);
  const std::string hash = write_safetensors(
      path, {{"b", DType::U8, {2}, two}, {"a", DType::F32, {2}, eight}}, {{"z", "1"}, {"k", "\""}});
  const std::string header = R"({"__metadata__":{"k":"\"","z":"1"},)"
                             R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                             R"("b":{"dtype":"U8","shape":[2],"data_offsets":[8,10]}})";
  const std::string file = read_all(path);
  ASSERT_EQ(header_length(file) % 8, 0u);
  ASSERT_GE(header_length(file), header.size());
  EXPECT_EQ(file.substr(8, header.size()), header);
  const size_t padding = header_length(file) - header.size();
  EXPECT_EQ(file.substr(8 + header.size(), padding), std::string(padding, ' '));
  EXPECT_EQ(file.size(), 8 + header_length(file) + 10);
  EXPECT_EQ(std::memcmp(file.data() + 8 + header_length(file), eight.data(), 8), 0);
  EXPECT_EQ(hash, sha256_hex(file));
}

TEST(SafetensorsWriter, AlignedForEveryHeaderLength) {
  const ScratchDirectory scratch;
  const auto data = counted(16);
  for (size_t length = 1; length <= 17; ++length) {
    const auto path = scratch.path() / std::to_string(length);
    write_safetensors(path, {{std::string(length, 'n'), DType::F64, {2}, data}});
    EXPECT_EQ(header_length(read_all(path)) % 8, 0u);
    const SafetensorsFile file(path);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(file.tensors().begin()->second.data.data()) % 8, 0u);
  }
}

TEST(SafetensorsWriter, RoundTripOfEveryDtypeAligned) {
  const ScratchDirectory scratch;
  std::vector<std::vector<std::byte>> data;
  std::vector<TensorToWrite> tensors;
  for (const DTypeRow& row : dtype_table()) data.push_back(counted(static_cast<size_t>(row.bits)));
  for (const DTypeRow& row : dtype_table()) {
    tensors.push_back(
        {std::string("t.") + row.name, row.dtype, {2, 4}, data[static_cast<size_t>(row.dtype)]});
  }
  tensors.push_back({"scalar", DType::I8, {}, std::span(data[0]).first(1)});
  tensors.push_back({"empty", DType::F32, {4, 0}});
  const Metadata metadata = {{"a", "line\nbreak"}, {"b", "\xc3\xa9"}};
  write_safetensors(scratch.path() / "x", tensors, metadata);
  const SafetensorsFile file(scratch.path() / "x");
  EXPECT_EQ(file.metadata(), metadata);
  ASSERT_EQ(file.tensors().size(), tensors.size());
  for (const TensorToWrite& tensor : tensors) {
    const TensorView* view = file.find(tensor.name);
    ASSERT_NE(view, nullptr) << tensor.name;
    EXPECT_EQ(view->dtype, tensor.dtype);
    EXPECT_EQ(view->shape, tensor.shape);
    EXPECT_TRUE(
        std::equal(view->data.begin(), view->data.end(), tensor.data.begin(), tensor.data.end()));
  }
}

TEST(SafetensorsWriter, OrderOfArgumentsDoesNotMatter) {
  const ScratchDirectory scratch;
  const auto data = counted(4);
  std::vector<TensorToWrite> tensors = {
      {"c", DType::U8, {4}, data}, {"a", DType::F16, {2}, data}, {"b", DType::F16, {2}, data}};
  const std::string first = write_safetensors(scratch.path() / "1", tensors);
  std::reverse(tensors.begin(), tensors.end());
  EXPECT_EQ(write_safetensors(scratch.path() / "2", tensors), first);
  EXPECT_EQ(sha256_file(scratch.path() / "2"), first);
}

TEST(SafetensorsWriter, TensorsMadeOnDemand) {
  const ScratchDirectory scratch;
  std::string order;
  const auto make = [&](char name) {
    return [&order, name] {
      order += name;
      return counted(4);
    };
  };
  const auto data = counted(4);
  const std::string lazy = write_safetensors(
      scratch.path() / "1",
      {{"a", DType::U8, {4}, {}, make('a')}, {"b", DType::F32, {1}, {}, make('b')}});
  EXPECT_EQ(order, "ba");  // the order of the file, each once
  EXPECT_EQ(lazy, write_safetensors(scratch.path() / "2",
                                    {{"a", DType::U8, {4}, data}, {"b", DType::F32, {1}, data}}));
}

TEST(SafetensorsWriter, RefusesWhatIsNoValidFileAndLeavesNothing) {
  const ScratchDirectory scratch;
  const auto data = counted(4);
  const auto refused = [&](std::vector<TensorToWrite> tensors, const Metadata& metadata = {}) {
    try {
      write_safetensors(scratch.path() / "x", std::move(tensors), metadata);
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kFailure) << error.message();
    }
    EXPECT_TRUE(std::filesystem::is_empty(scratch.path()));
  };
  refused({{"a", DType::U8, {4}, data}, {"a", DType::F32, {1}, data}});
  refused({{"__metadata__", DType::U8, {4}, data}});
  refused({{"a", DType::U8, {3}, data}});
  refused({{"a", DType::U8, {4}, {}, [] { return counted(5); }}});
  refused({{"a", DType::U8, {-4}, data}});
  refused({{"a", DType::U8, {int64_t{1} << 62, 4}, data}});
  refused({{"\xff", DType::U8, {4}, data}});
  refused({{"a", DType::U8, {4}, data}}, {{"k", "\xff"}});
}

// Opens our file with the Python library, compares what it reads, and lets it write the same
// tensors: the bytes must be equal (it orders more than one metadata key at random: one key here).
TEST(SafetensorsWriter, PythonLibraryReadsAndWritesTheSame) {
  const char* python = std::getenv("BILLM_PYTHON");
  if (python == nullptr || *python == '\0') {
    const char* required = std::getenv("BILLM_REQUIRE_DATA");
    if (required != nullptr && std::string_view(required) == "1") FAIL() << "BILLM_PYTHON not set";
    GTEST_SKIP() << "BILLM_PYTHON not set";
  }
  const ScratchDirectory scratch;
  const auto path = scratch.path() / "ours.safetensors";
  std::vector<float> floats(6);
  std::iota(floats.begin(), floats.end(), -2.5f);
  const std::vector<uint16_t> halves = {0x3c00, 0xc000, 0x0001};
  const std::vector<uint8_t> raw = {0, 1, 255};
  const std::vector<int64_t> scalar = {-5};
  write_safetensors(path,
                    {{"model.a", DType::F32, {2, 3}, std::as_bytes(std::span(floats))},
                     {"model.b", DType::F16, {3}, std::as_bytes(std::span(halves))},
                     {"\xc3\xa9\"\\\t", DType::U8, {3}, std::as_bytes(std::span(raw))},
                     {"scalar", DType::I64, {}, std::as_bytes(std::span(scalar))},
                     {"empty", DType::F32, {0, 7}}},
                    {{"format", "np"}});
  const auto script = scratch.write("check.py", R"(import sys
import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
path, again = sys.argv[1:]
t = load_file(path)
assert np.array_equal(t["model.a"], np.arange(6, dtype=np.float32).reshape(2, 3) - 2.5), t
assert np.array_equal(t["model.b"].view(np.uint16), [0x3C00, 0xC000, 1]), t
assert np.array_equal(t["\u00e9\"\\\t"], [0, 1, 255]), t
assert t["scalar"].shape == () and t["scalar"] == -5, t
assert t["empty"].shape == (0, 7) and t["empty"].dtype == np.float32, t
assert len(t) == 5
with safe_open(path, "np") as f:
    assert f.metadata() == {"format": "np"}
save_file(t, again, metadata={"format": "np"})
)");
  const auto again = scratch.path() / "theirs.safetensors";
  const std::string command = "'" + std::string(python) + "' '" + script.string() + "' '" +
                              path.string() + "' '" + again.string() + "'";
  ASSERT_EQ(std::system(command.c_str()), 0);
  EXPECT_EQ(read_all(again), read_all(path));
}

}  // namespace
}  // namespace billm
