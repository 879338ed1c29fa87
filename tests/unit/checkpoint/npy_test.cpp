// .npy files of token ids, also as NumPy writes them, damaged in every way that matters.
#include "billm/checkpoint/npy.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "support/environment.h"
#include "testing.h"

namespace billm {
namespace {

std::string npy(const std::string& header, const std::string& data, int major = 1) {
  std::string file("\x93NUMPY", 6);
  file += {static_cast<char>(major), 0};
  for (int i = 0; i < (major == 1 ? 2 : 4); ++i) {
    file += static_cast<char>(header.size() >> (8 * i) & 0xff);
  }
  return file + header + data;
}

std::string header(const std::string& descr, const std::string& shape,
                   const std::string& fortran = "False") {
  return "{'descr': '" + descr + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }\n";
}

template <typename Value>
std::string data(const std::vector<Value>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(Value)};
}

TokenMatrix parse(const std::string& file) { return parse_npy(bytes_of(file), "t.npy"); }

const std::vector<int32_t> kIds = {1, 2, 3, 40000, 5, 6};

TEST(Npy, ReadsBothWidthsEveryVersionAndOneDimension) {
  const std::vector<int64_t> wide(kIds.begin(), kIds.end());
  for (const int version : {1, 2, 3}) {
    const TokenMatrix narrow = parse(npy(header("<i4", "(2, 3)"), data(kIds), version));
    EXPECT_EQ(narrow.rows, 2);
    EXPECT_EQ(narrow.cols, 3);
    EXPECT_EQ(narrow.values, kIds);
    EXPECT_EQ(narrow.row(1)[0], 40000);
    EXPECT_EQ(parse(npy(header("<i8", "(2,3)"), data(wide), version)).values, kIds);
  }
  const TokenMatrix flat = parse(npy(header("<i8", "(6,)"), data(wide)));
  EXPECT_EQ(flat.rows, 1);
  EXPECT_EQ(flat.cols, 6);
  EXPECT_EQ(flat.values, kIds);
}

TEST(Npy, WritesWhatItReads) {
  const ScratchDirectory directory;
  const auto path = directory.path() / "tokens.npy";
  write_npy(path, {2, 3, kIds});
  const TokenMatrix matrix = read_npy(path);
  EXPECT_EQ(matrix.rows, 2);
  EXPECT_EQ(matrix.cols, 3);
  EXPECT_EQ(matrix.values, kIds);
}

TEST(Npy, ReadsNumPysFiles) {
  BILLM_NEED(directory, "BILLM_DATA_DIR");
  const TokenMatrix matrix = read_npy(directory + "/golden/calib_tokens.npy");
  EXPECT_EQ(matrix.rows, 8);
  EXPECT_EQ(matrix.cols, 2048);
}

TEST(Npy, RefusesOtherArrays) {
  const std::string ids = data(kIds);
  const struct {
    std::string file;
    const char* part;
  } cases[] = {
      {npy(header("<f4", "(2, 3)"), ids), "<f4"},
      {npy(header("<u4", "(2, 3)"), ids), "<u4"},
      {npy(header(">i4", "(2, 3)"), ids), ">i4"},
      {npy(header("|O", "(2, 3)"), ids), "|O"},
      {npy(header("", "(2, 3)"), ids), "header"},
      {npy(header("<i4", "(2, 3)", "True"), ids), "Fortran"},
      {npy(header("<i4", "(2, 3)", "0"), ids), "header"},
      {npy(header("<i4", "(1, 2, 3)"), ids), "shape"},
      {npy(header("<i4", "()"), ids), "shape"},
      {npy(header("<i4", "(6)"), ids), "header"},
      {npy(header("<i4", "(-2, -3)"), ids), "header"},
      {npy(header("<i4", "(2, 3.0)"), ids), "header"},
      {npy(header("<i4", "(2, 2)"), ids), "24 bytes"},
      {npy(header("<i4", "(3, 3)"), ids), "24 bytes"},
      {npy(header("<i4", "(0, 3)"), ""), "at least one token"},
      {npy(header("<i4", "(2, 0)"), ""), "at least one token"},
      // Products that wrap around to the file's size.
      {npy(header("<i4", "(4611686018427387905, 6)"), ids), "24 bytes"},
      {npy(header("<i4", "(9223372036854775809, 2)"), ids), "24 bytes"},
      {npy(header("<i4", "(99999999999999999999, 2)"), ids), "header"},
      {npy(header("<i8", "(1, 3)"), data<int64_t>({1, 2, 2147483648})), "2147483648 at index 2"},
      {npy(header("<i8", "(1, 3)"), data<int64_t>({1, -2, 3})), "-2 at index 1"},
      {npy(header("<i4", "(1, 3)"), data<int32_t>({1, 2, -3})), "-3 at index 2"},
      {npy(header("<i4", "(2, 3)"), ids, 4), "version"},
      {npy("{'descr': '<i4', 'fortran_order': False}", ids), "header"},
      {npy("{'descr': '<i4', 'descr': '<i4', 'fortran_order': False, 'shape': (2, 3)}", ids),
       "header"},
      {npy("{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3), 'x': 1}", ids), "header"},
      {npy(header("<i4", "(2, 3)") + "x", ids), "header"},
      {npy(std::string(5000, ' ') + header("<i4", "(2, 3)"), ids), "header"},
      {"PK\x03\x04 a zip file", ".npy file"},
      {"", ".npy file"},
  };
  for (const auto& one : cases) {
    SCOPED_TRACE(one.part);
    expect_bad_input([&] { parse(one.file); }, {"t.npy", one.part});
  }
}

TEST(Npy, RefusesEveryTruncationAndAnAppendedByte) {
  for (const int version : {1, 2}) {
    const std::string file = npy(header("<i4", "(2, 3)"), data(kIds), version);
    parse(file);
    for (size_t size = 0; size < file.size(); ++size) {
      expect_bad_input([&] { parse(file.substr(0, size)); }, {"t.npy"});
    }
    expect_bad_input([&] { parse(file + '\0'); }, {"t.npy"});
  }
}

TEST(Npy, SurvivesEveryBitFlipOfTheHeader) {
  const std::string good = npy(header("<i4", "(2, 3)"), data(kIds));
  const size_t end = good.size() - kIds.size() * 4;
  for (size_t at = 0; at < end; ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string file = good;
      file[at] = static_cast<char>(file[at] ^ (1 << bit));
      try {  // a blank turned into a newline or the like does no harm
        EXPECT_EQ(parse(file).values, kIds) << "byte " << at << ", bit " << bit;
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kBadInput);
        EXPECT_EQ(error.message().find('\n'), std::string::npos) << error.message();
      }
    }
  }
}

TEST(TokenWindows, ConsecutiveOnesTileTheText) {
  const TokenMatrix all = consecutive_windows(kIds, 2, 0);
  EXPECT_EQ(all.rows, 3);
  EXPECT_EQ(all.values, kIds);
  const TokenMatrix rest_dropped = consecutive_windows(kIds, 4, 0);
  EXPECT_EQ(rest_dropped.rows, 1);
  EXPECT_EQ(rest_dropped.values, std::vector<int32_t>(kIds.begin(), kIds.begin() + 4));
  EXPECT_EQ(consecutive_windows(kIds, 2, 2).rows, 2);
  EXPECT_EQ(consecutive_windows(kIds, 2, 9).rows, 3);
}

TEST(TokenWindows, SampledOnesAreSeededAndEverywhere) {
  std::vector<int32_t> tokens(100);
  for (int i = 0; i < 100; ++i) tokens[static_cast<size_t>(i)] = i;
  const TokenMatrix windows = sample_windows(tokens, 5, 4, 42);
  EXPECT_EQ(windows.rows, 5);
  EXPECT_EQ(windows.cols, 4);
  // SplitMix64 of seed 42 modulo 97: fixed for ever, since runs are repeated by their seed.
  std::vector<int32_t> starts;
  for (int64_t i = 0; i < 5; ++i) {
    starts.push_back(windows.row(i)[0]);
    for (size_t k = 0; k < 4; ++k) {
      EXPECT_EQ(windows.row(i)[k], starts.back() + static_cast<int>(k));
    }
  }
  EXPECT_EQ(starts, (std::vector<int32_t>{42, 6, 54, 6, 58}));
  EXPECT_EQ(sample_windows(tokens, 5, 4, 42).values, windows.values);
  EXPECT_NE(sample_windows(tokens, 5, 4, 43).values, windows.values);
  // Every start is reached, the first and the last too.
  std::vector<int> seen(97);
  const TokenMatrix many = sample_windows(tokens, 20000, 4, 1);
  for (int64_t i = 0; i < many.rows; ++i) ++seen[static_cast<size_t>(many.row(i)[0])];
  for (const int count : seen) {
    EXPECT_GT(count, 130);  // 206 expected, standard deviation 14
    EXPECT_LT(count, 290);
  }
  EXPECT_EQ(sample_windows(tokens, 2, 100, 7).values.size(), 200u);
}

TEST(TokenWindows, RefusesShortTexts) {
  expect_bad_input([] { sample_windows(kIds, 1, 7, 0); }, {"7", "got 6"});
  expect_bad_input([] { consecutive_windows(kIds, 7, 0); }, {"7", "got 6"});
  expect_bad_input([] { consecutive_windows({}, 1, 0); }, {"got 0"});
  expect_bad_input([] { consecutive_windows(kIds, 0, 0); }, {"length"});
  expect_bad_input([] { consecutive_windows(kIds, 2, -1); }, {"limit"});
  expect_bad_input([] { sample_windows(kIds, 0, 2, 0); }, {"count"});
}

}  // namespace
}  // namespace billm
