// Layout integer_rows: its bytes, written by hand from docs/format.md; rounding; what is refused,
// and that no damage makes the decoder read or write outside of its memory (the asan build looks).
#include "billm/pack/integer_rows.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "billm/base/half.h"
#include "format/layer_testing.h"

namespace billm::test {
namespace {

std::vector<float> random_matrix(int64_t rows, int64_t cols, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> weight(static_cast<size_t>(rows * cols));
  for (float& value : weight) value = round_to_half(normal(random));
  return weight;
}

IntegerRows rounded(const std::vector<float>& weight, int64_t rows, int64_t cols, int bits,
                    int64_t block_size = 0, int threads = 1) {
  IntegerRows made = make_integer_rows(rows, cols, bits);
  if (block_size > 0) {  // another one than the writer takes
    made.block_size = block_size;
    made.owned[1].assign(static_cast<size_t>(2 * rows * made.groups()), std::byte{0});
    made.planes[1].shape = {rows, made.groups()};
    made.planes[1].bytes = made.owned[1];
  }
  round_rows(weight.data(), 0, rows, threads, "test", &made);
  return made;
}

std::vector<float> decoded(const IntegerRows& rows) {
  std::vector<float> weight(static_cast<size_t>(rows.rows * rows.cols));
  decode_rows(rows, 0, rows.rows, weight.data());
  return weight;
}

std::string hex(const IntegerRows& rows, size_t plane) {
  std::string text;
  char digits[4];
  for (const std::byte byte : rows.planes[plane].bytes) {
    std::snprintf(digits, sizeof(digits), "%02x", static_cast<unsigned>(byte));
    text += (text.empty() ? "" : " ") + std::string(digits);
  }
  return text;
}

std::string refusal(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_EQ(error.message().rfind("file: module", 0), 0u) << error.message();
    return error.message();
  }
  return "no error";
}

bool accepted(const IntegerRows& rows) {
  return refusal([&] { check_integer_rows(rows, "file: module"); }) == "no error";
}

IntegerRows copy_of(const IntegerRows& rows) {
  IntegerRows copy;
  copy.rows = rows.rows;
  copy.cols = rows.cols;
  copy.bits = rows.bits;
  copy.block_size = rows.block_size;
  for (const Plane& plane : rows.planes) {
    copy.owned.emplace_back(plane.bytes.begin(), plane.bytes.end());
    copy.planes.push_back({plane.name, plane.dtype, plane.shape, copy.owned.back()});
  }
  return copy;
}

// Worked out by hand: a scale of 127/127 = 1, so that integers are the weights.
TEST(IntegerRows, BytesOf8Bits) {
  const IntegerRows rows = rounded({127, -127, 0.4f, 1, -1, 63.5f}, 2, 3, 8);
  // Row 0: 127 + 128, -127 + 128, 0 + 128. Row 1: a scale of 0.5; 2 + 128, -2 + 128, 127 + 128.
  EXPECT_EQ(hex(rows, 0), "ff 01 80 82 7e ff");
  EXPECT_EQ(hex(rows, 1), "00 3c 00 38");  // fp16 1 and 0.5
  EXPECT_EQ(decoded(rows), (std::vector<float>{127, -127, 0, 1, -1, 63.5f}));
  EXPECT_EQ(describe(rows),
            R"({"layout":"integer_rows","rows":2,"cols":3,"bits":8,"block_size":3})");
  EXPECT_EQ(rows.bytes(), 10);
  EXPECT_EQ(integer_rows_bytes(2, 3, 8), 10);
}

TEST(IntegerRows, BytesOf4Bits) {
  // Exact with a scale of 1, where the largest is -8.
  const IntegerRows rows = rounded({-8, 7, 3, -1, 0, 0, 0, 0, 0, 0}, 2, 5, 4);
  // Codes 0, 15, 11, 7, 8 and a row of zeros: 8 each, the left one in the lower half.
  EXPECT_EQ(hex(rows, 0), "f0 7b 08 88 88 08");
  EXPECT_EQ(hex(rows, 1), "00 3c 00 00");
  EXPECT_EQ(decoded(rows), (std::vector<float>{-8, 7, 3, -1, 0, 0, 0, 0, 0, 0}));
}

TEST(IntegerRows, RoundsToTheNearest) {
  const std::vector<float> weight = random_matrix(70, 93, 1);
  for (const int bits : {4, 8}) {
    for (const int64_t block : {int64_t{0}, int64_t{1}, int64_t{16}, int64_t{93}}) {
      const IntegerRows rows = rounded(weight, 70, 93, bits, block, 3);
      EXPECT_TRUE(accepted(rows));
      const std::vector<float> values = decoded(rows);
      for (int64_t row = 0; row < 70; ++row) {
        for (int64_t col = 0; col < 93; ++col) {
          const float scale = rows.scale(row, col / rows.block_size);
          const int code = rows.code(row, col);
          const auto at = static_cast<size_t>(row * 93 + col);
          ASSERT_EQ(values[at], static_cast<float>(code) * scale);
          const bool at_the_end = code == (bits == 8 ? 127 : 7) || code == (bits == 8 ? -127 : -8);
          if (!at_the_end) {
            ASSERT_LE(std::fabs(weight[at] - values[at]), 0.5001f * scale);
          }
        }
      }
      EXPECT_EQ(hex(rounded(weight, 70, 93, bits, block, 1), 0), hex(rows, 0));
    }
  }
}

// A part of the rows gives the same bytes as all at once; errors are those of what is decoded.
TEST(IntegerRows, InPieces) {
  const std::vector<float> weight = random_matrix(9, 40, 2);
  const IntegerRows whole = rounded(weight, 9, 40, 4);
  IntegerRows pieces = make_integer_rows(9, 40, 4);
  RoundingError sum;
  for (const auto& [first, count] : {std::pair(0, 4), {4, 5}}) {
    const RoundingError part =
        round_rows(weight.data() + first * 40, first, count, 2, "test", &pieces);
    sum.error += part.error;
    sum.total += part.total;
  }
  EXPECT_EQ(hex(pieces, 0), hex(whole, 0));
  EXPECT_EQ(hex(pieces, 1), hex(whole, 1));
  const std::vector<float> values = decoded(whole);
  double error = 0, total = 0;
  for (size_t i = 0; i < weight.size(); ++i) {
    error += std::pow(static_cast<double>(weight[i]) - static_cast<double>(values[i]), 2);
    total += std::pow(static_cast<double>(weight[i]), 2);
  }
  EXPECT_NEAR(sum.error, error, 1e-12 * total);
  EXPECT_NEAR(sum.total, total, 1e-12 * total);
}

TEST(IntegerRows, ALargeWeightIsRefused) {
  for (const int bits : {4, 8}) {
    IntegerRows rows = make_integer_rows(2, 2, bits);
    const std::vector<float> weight = {0, 0, 1e30f, 0};
    EXPECT_EQ(refusal([&] { round_rows(weight.data(), 0, 2, 1, "file: module", &rows); }),
              "file: module: row 1: a weight is too large for integers with a scale in fp16");
  }
}

TEST(IntegerRows, RunAsALayerOfTheSameWeights) {
  const std::vector<float> weight = random_matrix(11, 300, 3);
  for (const int bits : {4, 8}) {
    const IntegerRows rows = rounded(weight, 11, 300, bits);
    const RegionCodes codes = region_codes(rows, 2, 8, 128);
    check_codes(codes);
    std::vector<float> expected(8 * 300);
    decode_rows(rows, 2, 8, expected.data());
    // Values are equal; a zero may have another sign.
    EXPECT_EQ(decode_all(pack(codes)), expected);
  }
}

TEST(IntegerRows, DamageOfEveryBit) {
  for (const int bits : {4, 8}) {
    const IntegerRows good = rounded(random_matrix(3, 21, 4), 3, 21, bits, 8);
    ASSERT_TRUE(accepted(good));
    int refused = 0;
    for (size_t plane = 0; plane < 2; ++plane) {
      for (size_t bit = 0; bit < 8 * good.planes[plane].bytes.size(); ++bit) {
        IntegerRows bad = copy_of(good);
        bad.owned[plane][bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
        if (!accepted(bad)) {
          ++refused;
          continue;
        }
        for (const float value : decoded(bad)) ASSERT_TRUE(std::isfinite(value));
      }
    }
    EXPECT_GT(refused, bits == 4 ? 9 : 8);  // signs of scales, and with 4 bits three paddings
  }
}

TEST(IntegerRows, DamagedPlanes) {
  const IntegerRows good = rounded(random_matrix(3, 21, 5), 3, 21, 8);
  IntegerRows bad = copy_of(good);
  bad.planes.pop_back();
  EXPECT_FALSE(accepted(bad));
  bad = copy_of(good);
  bad.planes.push_back({"zeros", "U8", {1}, bad.owned[0]});
  EXPECT_FALSE(accepted(bad));
  bad = copy_of(good);
  bad.planes[0].dtype = "I8";
  EXPECT_FALSE(accepted(bad));
  bad = copy_of(good);
  bad.rows = 4;
  EXPECT_FALSE(accepted(bad));
  bad = copy_of(good);
  bad.block_size = 7;
  EXPECT_FALSE(accepted(bad));
  bad = copy_of(good);
  std::swap(bad.planes[0], bad.planes[1]);
  EXPECT_FALSE(accepted(bad));
}

TEST(IntegerRows, Descriptions) {
  const auto parse = [](const std::string& text) {
    return refusal([&] { parse_integer_rows(text, "file: module"); });
  };
  const std::string good = R"({"layout":"integer_rows","rows":2,"cols":3,"bits":8,"block_size":3})";
  EXPECT_EQ(parse(good), "no error");
  EXPECT_EQ(describe(parse_integer_rows(good, "")), good);
  EXPECT_TRUE(describes_integer_rows(good));
  for (const char* other :
       {"", "{", "[]", "7", "{}", R"({"layout":3})", R"({"layout":"planes"})"}) {
    EXPECT_FALSE(describes_integer_rows(other)) << other;
  }
  for (const auto& [from, to] : {std::pair("\"rows\":2", "\"rows\":0"),
                                 {"\"cols\":3", "\"cols\":0"},
                                 {"\"bits\":8", "\"bits\":5"},
                                 {"\"bits\":8", "\"bits\":\"8\""},
                                 {"\"block_size\":3", "\"block_size\":0"},
                                 {"\"block_size\":3", "\"block_size\":4"},
                                 {"\"rows\":2", "\"rows\":-2"},
                                 {"\"rows\":2,", ""},
                                 {"\"rows\":2", "\"rows\":18446744073709551615"},
                                 {"}", ",\"more\":1}"}}) {
    std::string bad = good;
    bad.replace(bad.find(from), std::string(from).size(), to);
    EXPECT_NE(parse(bad), "no error") << bad;
  }
}

}  // namespace
}  // namespace billm::test
