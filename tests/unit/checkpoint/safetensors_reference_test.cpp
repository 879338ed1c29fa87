// The same hand-made files to the safetensors library (in Python) and to us: both accept or both
// refuse. A difference is a row of its own with the reason for it.
#include <gtest/gtest.h>

#include <sstream>
#include <vector>

#include "billm/checkpoint/safetensors.h"
#include "support/environment.h"
#include "testing.h"

namespace billm {
namespace {

enum class Verdict { kAccepted, kRefused };
constexpr Verdict kAccepted = Verdict::kAccepted, kRefused = Verdict::kRefused;

struct Case {
  const char* name;
  std::string file;
  Verdict ours;
  Verdict reference;
  const char* reason = "";  // why the two differ
};

std::string with_length(uint64_t length, const std::string& rest) {
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + rest;
}

// A file with one tensor "t".
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets,
                size_t data_bytes) {
  return raw_safetensors(R"({"t":{"dtype":")" + dtype + R"(","shape":)" + shape +
                             R"(,"data_offsets":)" + offsets + "}}",
                         data_bytes);
}

std::string entry(const std::string& offsets) {
  return R"({"dtype":"U8","shape":[4],"data_offsets":)" + offsets + "}";
}

std::string two(const std::string& first, const std::string& second, size_t data_bytes) {
  return raw_safetensors(R"({"a":)" + entry(first) + R"(,"b":)" + entry(second) + "}", data_bytes);
}

const std::string kGood = one("U8", "[4]", "[0,4]", 4);

const std::vector<Case>& cases() {
  static const std::vector<Case> rows = {
      // Length of the file and of the header.
      {"empty file", "", kRefused, kRefused},
      {"7 bytes", std::string(7, '\0'), kRefused, kRefused},
      {"8 bytes, length 0", std::string(8, '\0'), kRefused, kRefused},
      {"no tensors", raw_safetensors("{}", 0), kAccepted, kAccepted},
      {"length past the end", with_length(3, "{}"), kRefused, kRefused},
      {"length 100000001", with_length(100'000'001, "{}"), kRefused, kRefused},
      {"length 2^63", with_length(uint64_t{1} << 63, "{}"), kRefused, kRefused},
      {"length 2^64 - 1", with_length(~uint64_t{0}, "{}"), kRefused, kRefused},
      {"length 2^64 - 8", with_length(~uint64_t{0} - 7, "{}"), kRefused, kRefused},
      // The header as text.
      {"padded with spaces", raw_safetensors("{}      ", 0), kAccepted, kAccepted},
      {"padded with newlines", raw_safetensors("{}\n\n", 0), kAccepted, kAccepted},
      {"space first", raw_safetensors(" {}", 0), kRefused, kAccepted,
       "the format's text: the header must begin with '{'"},
      {"array", raw_safetensors("[]", 0), kRefused, kRefused},
      {"byte order mark", raw_safetensors("\xef\xbb\xbf{}", 0), kRefused, kRefused},
      {"not closed", raw_safetensors("{", 0), kRefused, kRefused},
      {"two objects", raw_safetensors("{}{}", 0), kRefused, kRefused},
      {"NUL behind", raw_safetensors(std::string("{}\0", 3), 0), kRefused, kRefused},
      {"comma behind the last", raw_safetensors(R"({"t":)" + entry("[0,4]") + ",}", 4), kRefused,
       kRefused},
      {"comment", raw_safetensors("{/*x*/}", 0), kRefused, kRefused},
      {"invalid UTF-8 in metadata", raw_safetensors("{\"__metadata__\":{\"a\":\"\xff\"}}", 0),
       kRefused, kRefused},
      {"overlong UTF-8", raw_safetensors("{\"__metadata__\":{\"a\":\"\xc0\xaf\"}}", 0), kRefused,
       kRefused},
      {"UTF-8 surrogate", raw_safetensors("{\"__metadata__\":{\"a\":\"\xed\xa0\x80\"}}", 0),
       kRefused, kRefused},
      {"lone surrogate escape", raw_safetensors(R"({"__metadata__":{"a":"\ud800"}})", 0), kRefused,
       kRefused},
      {"invalid UTF-8 in a name", raw_safetensors("{\"\xff\":" + entry("[0,4]") + "}", 4), kRefused,
       kRefused},
      {"name in UTF-8", raw_safetensors("{\"\xc3\xa9\":" + entry("[0,4]") + "}", 4), kAccepted,
       kAccepted},
      {"empty name", raw_safetensors(R"({"":)" + entry("[0,4]") + "}", 4), kAccepted, kAccepted},
      // Metadata.
      {"metadata", raw_safetensors(R"({"__metadata__":{"format":"pt"}})", 0), kAccepted, kAccepted},
      {"empty metadata", raw_safetensors(R"({"__metadata__":{}})", 0), kAccepted, kAccepted},
      {"number in metadata", raw_safetensors(R"({"__metadata__":{"a":1}})", 0), kRefused, kRefused},
      {"null in metadata", raw_safetensors(R"({"__metadata__":{"a":null}})", 0), kRefused,
       kRefused},
      {"metadata in metadata", raw_safetensors(R"({"__metadata__":{"a":{}}})", 0), kRefused,
       kRefused},
      {"metadata list", raw_safetensors(R"({"__metadata__":[]})", 0), kRefused, kRefused},
      {"metadata null", raw_safetensors(R"({"__metadata__":null})", 0), kRefused, kAccepted,
       "the format's text asks for a map of strings"},
      // Duplicate keys.
      {"tensor twice", two("[0,4]", "[4,8]", 8).replace(8 + 2, 1, "b"), kRefused, kRefused},
      {"metadata key twice", raw_safetensors(R"({"__metadata__":{"a":"1","a":"2"}})", 0), kRefused,
       kAccepted, "the format's text forbids duplicate keys"},
      {"metadata twice", raw_safetensors(R"({"__metadata__":{},"__metadata__":{}})", 0), kRefused,
       kRefused},
      {"dtype twice",
       raw_safetensors(R"({"t":{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 4),
       kRefused, kRefused},
      // dtype.
      {"U8", kGood, kAccepted, kAccepted},
      {"unknown dtype", one("F128", "[1]", "[0,16]", 16), kRefused, kRefused},
      {"lower-case dtype", one("u8", "[4]", "[0,4]", 4), kRefused, kRefused},
      // Shapes.
      {"scalar", one("F32", "[]", "[0,4]", 4), kAccepted, kAccepted},
      {"size 0", one("F32", "[3,0]", "[0,0]", 0), kAccepted, kAccepted},
      {"negative size", one("U8", "[-4]", "[0,4]", 4), kRefused, kRefused},
      {"fraction", one("U8", "[4.0]", "[0,4]", 4), kRefused, kRefused},
      {"text as size", one("U8", R"(["4"])", "[0,4]", 4), kRefused, kRefused},
      {"null as shape", one("U8", "null", "[0,4]", 4), kRefused, kRefused},
      {"size 2^64", one("U8", "[18446744073709551616]", "[0,4]", 4), kRefused, kRefused},
      {"product 2^64", one("U8", "[4294967296,4294967296]", "[0,0]", 0), kRefused, kRefused},
      {"bytes 2^64", one("F64", "[2305843009213693952]", "[0,0]", 0), kRefused, kRefused},
      {"half a byte", one("F4", "[3]", "[0,2]", 2), kRefused, kRefused},
      // Offsets.
      {"end before begin", one("U8", "[4]", "[4,0]", 4), kRefused, kRefused},
      {"negative begin", one("U8", "[4]", "[-4,0]", 4), kRefused, kRefused},
      {"one offset", one("U8", "[4]", "[0]", 4), kRefused, kRefused},
      {"three offsets", one("U8", "[4]", "[0,4,8]", 4), kRefused, kRefused},
      {"fraction as offset", one("U8", "[4]", "[0,4.0]", 4), kRefused, kRefused},
      {"range of other size", one("F32", "[2]", "[0,4]", 4), kRefused, kRefused},
      {"range of an empty tensor", one("F32", "[0]", "[0,4]", 4), kRefused, kRefused},
      {"end 2^64 - 1", one("U8", "[4]", "[0,18446744073709551615]", 4), kRefused, kRefused},
      // Holes, overlaps, the end of the file.
      {"back to back", two("[0,4]", "[4,8]", 8), kAccepted, kAccepted},
      {"other order", two("[4,8]", "[0,4]", 8), kAccepted, kAccepted},
      {"hole between", two("[0,4]", "[5,9]", 9), kRefused, kRefused},
      {"hole before", two("[1,5]", "[5,9]", 9), kRefused, kRefused},
      {"overlap", two("[0,4]", "[3,7]", 7), kRefused, kRefused},
      {"same range", two("[0,4]", "[0,4]", 4), kRefused, kRefused},
      {"a byte missing", one("U8", "[4]", "[0,4]", 3), kRefused, kRefused},
      {"a byte too many", one("U8", "[4]", "[0,4]", 5), kRefused, kRefused},
      {"data without tensors", raw_safetensors("{}", 1), kRefused, kRefused},
      // Members.
      {"no dtype", raw_safetensors(R"({"t":{"shape":[4],"data_offsets":[0,4]}})", 4), kRefused,
       kRefused},
      {"no shape", raw_safetensors(R"({"t":{"dtype":"U8","data_offsets":[0,4]}})", 4), kRefused,
       kRefused},
      {"no offsets", raw_safetensors(R"({"t":{"dtype":"U8","shape":[4]}})", 4), kRefused, kRefused},
      {"foreign member",
       raw_safetensors(R"({"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"x":{}}})", 4),
       kAccepted, kAccepted},
      {"tensor as array", raw_safetensors(R"({"t":["U8",[4],[0,4]]})", 4), kRefused, kAccepted,
       "its JSON library reads members by their order, too; the format's text has an object"},
      {"tensor is null", raw_safetensors(R"({"t":null})", 0), kRefused, kRefused},
  };
  return rows;
}

bool accepted(const std::string& file) {
  try {
    parse_safetensors(bytes_of(file), "x");
    return true;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput) << error.message();
    return false;
  }
}

TEST(SafetensorsReference, OurVerdicts) {
  for (const Case& row : cases()) {
    EXPECT_EQ(accepted(row.file), row.ours == kAccepted) << row.name;
    EXPECT_EQ(row.ours == row.reference, *row.reason == '\0') << row.name;
    // We may refuse more than the reference, never less.
    EXPECT_TRUE(row.ours == kRefused || row.reference == kAccepted) << row.name;
  }
}

TEST(SafetensorsReference, VerdictsOfTheLibrary) {
  BILLM_NEED(python, "BILLM_PYTHON");
  const ScratchDirectory scratch;
  std::string list;
  // Every row, and every dtype of our table.
  std::vector<std::pair<std::string, bool>> expected;
  const auto add = [&](const std::string& name, const std::string& file, Verdict verdict) {
    list += scratch.write(std::to_string(expected.size()), file).string() + "\n";
    expected.emplace_back(name, verdict == kAccepted);
  };
  for (const Case& row : cases()) add(row.name, row.file, row.reference);
  for (const DTypeRow& row : dtype_table()) {
    const auto bytes = static_cast<size_t>(row.bits);  // of 8 elements
    add(row.name, one(row.name, "[8]", "[0," + std::to_string(bytes) + "]", bytes), kAccepted);
  }
  const std::string out =
      test::run_python(python, "safetensors_reference.py", {scratch.write("list", list).string()});
  std::istringstream lines(out);
  for (const auto& [name, wanted] : expected) {
    std::string line;
    ASSERT_TRUE(std::getline(lines, line)) << name;
    EXPECT_EQ(line.starts_with('1'), wanted) << name << ": " << line;
  }
}

}  // namespace
}  // namespace billm
