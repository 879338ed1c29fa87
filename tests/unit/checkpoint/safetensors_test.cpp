// Reading safetensors: every rule of the format, once kept and once broken, and damaged files.
#include "billm/checkpoint/safetensors.h"

#include <chrono>
#include <vector>

#include "testing.h"

namespace billm {
namespace {

constexpr char kTwo[] = R"({"a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},)"
                        R"("b":{"dtype":"U8","shape":[4],"data_offsets":[12,16]}})";

TensorContent parse(const std::string& file) { return parse_safetensors(bytes_of(file), "x"); }

void expect_refused(const std::string& file, std::initializer_list<std::string_view> parts) {
  expect_bad_input([&] { parse(file); }, parts);
}

// A file with one tensor "t" of these fields and this much data.
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets,
                size_t data_bytes) {
  return raw_safetensors(
      R"({"t":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}",
      data_bytes);
}

std::string with_length(uint64_t length, std::string rest) {
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file + rest;
}

TEST(Safetensors, TwoTensors) {
  const std::string file = raw_safetensors(kTwo, 16);
  const TensorContent content = parse(file);
  ASSERT_EQ(content.tensors.size(), 2u);
  const TensorView& a = content.tensors.at("a");
  EXPECT_EQ(a.dtype, DType::F16);
  EXPECT_EQ(a.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(a.elements(), 6);
  EXPECT_EQ(a.data.size(), 12u);
  EXPECT_EQ(content.tensors.at("b").data.front(), std::byte{12});
  EXPECT_TRUE(content.metadata.empty());
}

TEST(Safetensors, EmptyFilesAreLegal) {
  EXPECT_TRUE(parse(raw_safetensors("{}", 0)).tensors.empty());
  EXPECT_TRUE(parse(raw_safetensors("{}      ", 0)).tensors.empty());
}

TEST(Safetensors, SpacePaddedHeader) {
  EXPECT_EQ(parse(raw_safetensors(std::string(kTwo) + "   ", 16)).tensors.size(), 2u);
}

TEST(Safetensors, Metadata) {
  const auto content = parse(raw_safetensors(R"({"__metadata__":{"format":"pt","x":""}})", 0));
  EXPECT_EQ(content.metadata, (Metadata{{"format", "pt"}, {"x", ""}}));
  EXPECT_TRUE(parse(raw_safetensors(R"({"__metadata__":{}})", 0)).metadata.empty());
}

TEST(Safetensors, MetadataMustMapStringsToStrings) {
  expect_refused(raw_safetensors(R"({"__metadata__":{"format":1}})", 0),
                 {"x: __metadata__: format: expected a string, got 1"});
  expect_refused(raw_safetensors(R"({"__metadata__":{"a":{"b":"c"}}})", 0), {"__metadata__: a"});
  expect_refused(raw_safetensors(R"({"__metadata__":[]})", 0), {"__metadata__"});
  expect_refused(raw_safetensors(R"({"__metadata__":null})", 0), {"__metadata__"});
}

TEST(Safetensors, ShorterThanTheLength) {
  for (size_t size = 0; size < 8; ++size) {
    expect_refused(std::string(size, '\0'), {"x: size: expected at least 8 bytes, got"});
  }
}

TEST(Safetensors, HeaderLengthLimits) {
  expect_refused(with_length(0, "{}"), {"header", "empty"});
  expect_refused(with_length(3, "{}"), {"header length: expected at most the 2 bytes", "got 3"});
  expect_refused(with_length(100'000'000, "{}"), {"expected at most the 2 bytes"});
  expect_refused(with_length(100'000'001, "{}"), {"expected at most 100000000, got 100000001"});
  // Lengths whose sum with 8 overflows a signed or an unsigned 64-bit integer.
  expect_refused(with_length(uint64_t{1} << 63, "{}"), {"got 9223372036854775808"});
  expect_refused(with_length((uint64_t{1} << 63) - 8, "{}"), {"header length"});
  expect_refused(with_length(~uint64_t{0}, "{}"), {"got 18446744073709551615"});
  expect_refused(with_length(~uint64_t{0} - 7, "{}"), {"header length"});
}

TEST(Safetensors, HeaderMustStartWithABrace) {
  expect_refused(raw_safetensors(" {}", 0), {"header: expected JSON that starts with '{'"});
  expect_refused(raw_safetensors("[]", 0), {"starts with '{'"});
  expect_refused(raw_safetensors("\xef\xbb\xbf{}", 0), {"starts with '{'"});
}

TEST(Safetensors, HeaderMustBeJsonToItsEnd) {
  expect_refused(raw_safetensors("{", 0), {"x: header: expected JSON, got a syntax error at byte"});
  expect_refused(raw_safetensors("{}x", 0), {"syntax error"});
  expect_refused(raw_safetensors("{}{}", 0), {"syntax error"});
  expect_refused(raw_safetensors(std::string("{}\0", 3), 0), {"NUL"});
  expect_refused(raw_safetensors(R"({"a":1e999})", 0), {"number out of range"});
  expect_refused(raw_safetensors(R"({"a":)" + std::string(100000, '['), 0), {"64 levels"});
}

TEST(Safetensors, HeaderMustBeUtf8) {
  EXPECT_TRUE(parse(one(R"("U8")", "[1]", "[0,1]", 1)).tensors.contains("t"));
  EXPECT_TRUE(parse(raw_safetensors("{\"\xc3\xa9\":{\"dtype\":\"U8\",\"shape\":[1],"
                                    "\"data_offsets\":[0,1]}}",
                                    1))
                  .tensors.contains("\xc3\xa9"));
  expect_refused(raw_safetensors("{\"__metadata__\":{\"a\":\"\xff\"}}", 0), {"header"});
  expect_refused(raw_safetensors("{\"__metadata__\":{\"a\":\"\xc0\xaf\"}}", 0), {"header"});
  expect_refused(raw_safetensors("{\"__metadata__\":{\"a\":\"\xed\xa0\x80\"}}", 0), {"header"});
  expect_refused(raw_safetensors(R"({"__metadata__":{"a":"\ud800"}})", 0), {"header"});
}

TEST(Safetensors, DuplicateKeysAtEveryLevel) {
  const std::string t = R"({"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  expect_refused(raw_safetensors(R"({"t":)" + t + R"(,"t":)" + t + "}", 1),
                 {"x: header: expected each key once, got \"t\" twice"});
  expect_refused(raw_safetensors(R"({"t":)" + t + R"(,"\u0074":)" + t + "}", 1), {"\"t\" twice"});
  expect_refused(raw_safetensors(R"({"__metadata__":{},"__metadata__":{}})", 0), {"__metadata__"});
  expect_refused(raw_safetensors(R"({"__metadata__":{"a":"1","a":"2"}})", 0), {"\"a\" twice"});
  expect_refused(
      raw_safetensors(R"({"t":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1),
      {"\"dtype\" twice"});
  // The same key in different objects is no duplicate.
  const std::string u = R"({"dtype":"U8","shape":[1],"data_offsets":[1,2]})";
  EXPECT_EQ(parse(raw_safetensors(R"({"t":)" + t + R"(,"u":)" + u + "}", 2)).tensors.size(), 2u);
}

TEST(Safetensors, ScalarsAndEmptyTensors) {
  const std::string file = one(R"("F32")", "[]", "[0,4]", 4);
  const auto scalar = parse(file);
  EXPECT_TRUE(scalar.tensors.at("t").shape.empty());
  EXPECT_EQ(scalar.tensors.at("t").elements(), 1);
  const std::string empty = one(R"("F32")", "[3,0]", "[0,0]", 0);
  EXPECT_EQ(parse(empty).tensors.at("t").elements(), 0);
  EXPECT_TRUE(parse(empty).tensors.at("t").data.empty());
  // Empty tensors before, between and after others.
  const std::string mixed =
      raw_safetensors(R"({"z":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                      R"("a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                      R"("m":{"dtype":"F64","shape":[0,5],"data_offsets":[2,2]},)"
                      R"("b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]},)"
                      R"("y":{"dtype":"U8","shape":[0],"data_offsets":[3,3]}})",
                      3);
  EXPECT_EQ(parse(mixed).tensors.size(), 5u);
}

TEST(Safetensors, EveryDtypeIsAccepted) {
  for (const DTypeRow& row : dtype_table()) {
    const size_t bytes = static_cast<size_t>(row.bits);  // of 8 elements
    const std::string file =
        one("\"" + std::string(row.name) + "\"", "[8]", "[0," + std::to_string(bytes) + "]", bytes);
    EXPECT_EQ(parse(file).tensors.at("t").dtype, row.dtype) << row.name;
  }
}

TEST(Safetensors, UnknownDtype) {
  expect_refused(one(R"("F128")", "[1]", "[0,16]", 16),
                 {"x: t: dtype: expected one of", "\"F128\""});
  expect_refused(one(R"("f32")", "[1]", "[0,4]", 4), {"\"f32\""});
  expect_refused(one("7", "[1]", "[0,4]", 4), {"dtype", "got 7"});
  expect_refused(one("null", "[1]", "[0,4]", 4), {"dtype", "got null"});
}

TEST(Safetensors, BadShapes) {
  expect_refused(one(R"("U8")", "[-1]", "[0,1]", 1), {"t: shape: expected integers", "got -1"});
  expect_refused(one(R"("U8")", "[1.0]", "[0,1]", 1), {"shape", "got 1.0"});
  expect_refused(one(R"("U8")", R"(["1"])", "[0,1]", 1), {"shape"});
  expect_refused(one(R"("U8")", "[true]", "[0,1]", 1), {"shape"});
  expect_refused(one(R"("U8")", "[[1]]", "[0,1]", 1), {"shape"});
  expect_refused(one(R"("U8")", "1", "[0,1]", 1), {"shape: expected an array"});
  expect_refused(one(R"("U8")", "null", "[0,1]", 1), {"shape"});
  expect_refused(one(R"("U8")", "[9223372036854775808]", "[0,1]", 1), {"shape"});
  expect_refused(one(R"("U8")", "[18446744073709551617]", "[0,1]", 1), {"shape"});
}

TEST(Safetensors, ShapeProductsThatOverflow) {
  // 2^32 * 2^32 and 2^62 * 4 are 0 modulo 2^64.
  expect_refused(one(R"("U8")", "[4294967296,4294967296]", "[0,0]", 0), {"shape", "U8"});
  expect_refused(one(R"("U8")", "[4611686018427387904,4]", "[0,0]", 0), {"shape"});
  expect_refused(one(R"("F64")", "[2305843009213693952]", "[0,0]", 0), {"shape"});
  expect_refused(one(R"("F4")", "[3]", "[0,2]", 2), {"whole bytes"});
}

TEST(Safetensors, BadOffsets) {
  expect_refused(one(R"("U8")", "[1]", "[-1,0]", 1), {"data_offsets: expected two"});
  expect_refused(one(R"("U8")", "[1]", "[0,1.0]", 1), {"data_offsets"});
  expect_refused(one(R"("U8")", "[1]", "[0]", 1), {"data_offsets"});
  expect_refused(one(R"("U8")", "[1]", "[0,1,2]", 1), {"data_offsets"});
  expect_refused(one(R"("U8")", "[1]", R"({"a":0})", 1), {"data_offsets"});
  expect_refused(one(R"("U8")", "[1]", "[0,18446744073709551616]", 1), {"data_offsets"});
  expect_refused(one(R"("U8")", "[1]", "[1,0]", 1), {"begin <= end, got [1, 0]"});
}

TEST(Safetensors, OffsetsMustFitShapeAndDtype) {
  expect_refused(one(R"("F32")", "[2]", "[0,4]", 4), {"expected 8 bytes for F32 [2], got 4"});
  expect_refused(one(R"("F32")", "[2]", "[0,12]", 12), {"expected 8 bytes"});
  expect_refused(one(R"("F32")", "[0]", "[0,4]", 4), {"expected 0 bytes"});
  expect_refused(one(R"("U8")", "[1]", "[0,18446744073709551615]", 1), {"expected 1 bytes"});
}

TEST(Safetensors, HolesAndOverlaps) {
  const auto two = [](const char* first, const char* second, size_t bytes) {
    const std::string info = R"({"dtype":"U8","shape":[4],"data_offsets":)";
    return raw_safetensors(R"({"a":)" + info + first + R"(},"b":)" + info + second + "}}", bytes);
  };
  EXPECT_EQ(parse(two("[0,4]", "[4,8]", 8)).tensors.size(), 2u);
  EXPECT_EQ(parse(two("[4,8]", "[0,4]", 8)).tensors.size(), 2u);
  expect_refused(two("[0,4]", "[5,9]", 9),
                 {"x: b: data_offsets: expected to begin at 4", "[5, 9]"});
  expect_refused(two("[1,5]", "[5,9]", 9), {"a: data_offsets: expected to begin at 0"});
  expect_refused(two("[0,4]", "[3,7]", 7), {"b: data_offsets: expected to begin at 4"});
  expect_refused(two("[0,4]", "[0,4]", 4), {"expected to begin at 4"});
}

TEST(Safetensors, SizeOfTheFileMustBeExact) {
  expect_refused(raw_safetensors(kTwo, 15), {"x: size: expected 16 bytes of data", "got 15"});
  expect_refused(raw_safetensors(kTwo, 17), {"expected 16 bytes of data", "got 17"});
  expect_refused(raw_safetensors("{}", 1), {"expected 0 bytes of data"});
}

TEST(Safetensors, MissingAndForeignKeys) {
  expect_refused(raw_safetensors(R"({"t":{"dtype":"U8","shape":[1]}})", 1), {"no data_offsets"});
  expect_refused(raw_safetensors(R"({"t":{"dtype":"U8","data_offsets":[0,1]}})", 1), {"no shape"});
  expect_refused(raw_safetensors(R"({"t":{"shape":[1],"data_offsets":[0,1]}})", 1), {"no dtype"});
  expect_refused(raw_safetensors(R"({"t":[]})", 1), {"x: t: expected an object"});
  // The reference ignores what it does not know.
  EXPECT_NO_THROW(parse(raw_safetensors(
      R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"extra":{"a":[1]}}})", 1)));
}

TEST(Safetensors, MessagesStayShortAndOnOneLine) {
  const std::string name(5000, 'n');
  expect_refused(raw_safetensors("{\"" + name + "\":1}", 0), {"nnn..."});
  expect_refused(raw_safetensors(R"({"a\nb\u001b":1})", 0), {"a?b?"});
  expect_refused(one("\"" + name + "\"", "[1]", "[0,1]", 1), {"dtype"});
}

TEST(Safetensors, TruncatedAtEveryByte) {
  const std::string file = raw_safetensors(kTwo, 16);
  for (size_t size = 0; size < file.size(); ++size) expect_refused(file.substr(0, size), {"x: "});
}

TEST(Safetensors, EveryBitFlipOfTheHeaderIsAnswered) {
  const std::string file = raw_safetensors(
      R"({"__metadata__":{"f":"p"},"a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},)"
      R"("b":{"dtype":"U8","shape":[4],"data_offsets":[12,16]}} )",
      16);
  int accepted = 0, refused = 0;
  for (size_t bit = 0; bit < (file.size() - 16) * 8; ++bit) {
    std::string damaged = file;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    try {
      for (const auto& [name, view] : parse(damaged).tensors) {
        ASSERT_LE(view.data.size(), 16u);
      }
      ++accepted;  // another name or other metadata: still a valid file
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      ++refused;
    }
  }
  EXPECT_GT(accepted, 0);
  EXPECT_GT(refused, accepted);
}

// Mixture-of-experts models have tens of thousands of tensors.
TEST(Safetensors, ManyTensorsTakeTimeInProportion) {
  std::string header = "{";
  for (int i = 0; i < 60000; ++i) {
    header += (i > 0 ? ",\"" : "\"") + std::to_string(i) +
              R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  }
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(parse(raw_safetensors(header + "}", 0)).tensors.size(), 60000u);
  const auto seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin);
  EXPECT_LT(seconds.count(), 15.0);  // 0.3 s; with time in the square of the number it took 30 s
}

TEST(Safetensors, FileFindReleaseAndMove) {
  const ScratchDirectory scratch;
  std::string header = R"({"a":{"dtype":"U8","shape":[100000],"data_offsets":[0,100000]}})";
  SafetensorsFile file(scratch.write("m.safetensors", raw_safetensors(header, 100000)));
  ASSERT_NE(file.find("a"), nullptr);
  EXPECT_EQ(file.find("b"), nullptr);
  const std::byte* data = file.find("a")->data.data();
  file.release("a");
  file.release("b");
  const SafetensorsFile moved(std::move(file));
  EXPECT_EQ(moved.find("a")->data.data(), data);
  EXPECT_EQ(moved.find("a")->data[99999], static_cast<std::byte>(99999 % 256));
  EXPECT_EQ(moved.path().filename(), "m.safetensors");
}

TEST(Safetensors, MessagesNameTheFile) {
  const ScratchDirectory scratch;
  const auto path = scratch.write("m.safetensors", "short");
  expect_bad_input([&] { SafetensorsFile file(path); }, {path.string() + ": size: expected"});
  expect_bad_input([&] { SafetensorsFile file(scratch.path() / "none"); }, {"none: cannot open"});
}

}  // namespace
}  // namespace billm
