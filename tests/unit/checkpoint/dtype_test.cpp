// Element types: the table, sizes, and conversions against formulas written down independently.
#include "billm/checkpoint/dtype.h"

#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "testing.h"

namespace billm {
namespace {

// The value of a half by definition: sign, 5 exponent bits, 10 mantissa bits.
double half_by_definition(uint16_t half) {
  const int exponent = (half >> 10) & 31;
  const int mantissa = half & 1023;
  double value =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  if (exponent == 31) {
    value = mantissa == 0 ? std::numeric_limits<double>::infinity() : std::nan("");
  }
  return (half & 0x8000) != 0 ? -value : value;
}

TEST(DType, TableNamesAreUniqueAndFound) {
  std::set<std::string> names;
  for (const DTypeRow& row : dtype_table()) {
    EXPECT_TRUE(names.insert(row.name).second);
    EXPECT_EQ(parse_dtype(row.name), row.dtype);
    EXPECT_EQ(dtype_bits(row.dtype), row.bits);
    EXPECT_STREQ(dtype_name(row.dtype), row.name);
  }
  EXPECT_EQ(names.size(), 22u);
  EXPECT_EQ(parse_dtype("f32"), std::nullopt);
  EXPECT_EQ(parse_dtype(""), std::nullopt);
  EXPECT_EQ(dtype_bytes(DType::BF16), 2);
  EXPECT_THROW(dtype_bytes(DType::F4), Error);
}

TEST(DType, TensorBytes) {
  const auto bytes = [](DType dtype, std::vector<int64_t> shape) {
    return tensor_bytes(dtype, shape);
  };
  EXPECT_EQ(bytes(DType::F32, {}), 4);
  EXPECT_EQ(bytes(DType::F32, {2, 3}), 24);
  EXPECT_EQ(bytes(DType::F32, {2, 0, 3}), 0);
  EXPECT_EQ(bytes(DType::F4, {3, 2}), 3);
  EXPECT_EQ(bytes(DType::F6_E2M3, {4}), 3);
  EXPECT_EQ(bytes(DType::F4, {3}), std::nullopt);  // 12 bits
  EXPECT_EQ(bytes(DType::U8, {-1}), std::nullopt);
  EXPECT_EQ(bytes(DType::U8, {int64_t{1} << 62, 2}), std::nullopt);
  EXPECT_EQ(bytes(DType::F64, {int64_t{1} << 60}), std::nullopt);
}

TEST(DType, ShapeText) {
  EXPECT_EQ(shape_text(std::vector<int64_t>{}), "[]");
  EXPECT_EQ(shape_text(std::vector<int64_t>{11008, 4096}), "[11008, 4096]");
  EXPECT_LT(shape_text(std::vector<int64_t>(100000, 7)).size(), 200u);
}

TEST(DType, EveryHalfToFloat) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto half = static_cast<uint16_t>(i);
    const float value = half_to_float(half);
    const double expected = half_by_definition(half);
    if (std::isnan(expected)) {
      // Sign and payload kept, the payload at the upper end of the longer mantissa.
      const uint32_t bits =
          (uint32_t{half & 0x8000u} << 16) | 0x7f800000u | ((half & 0x3ffu) << 13);
      ASSERT_EQ(std::bit_cast<uint32_t>(value), bits) << i;
    } else {
      ASSERT_EQ(value, expected) << i;
      ASSERT_EQ(std::signbit(value), std::signbit(expected)) << i;
    }
  }
}

TEST(DType, EveryBfloat16ToFloat) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const int exponent = (i >> 7) & 255;
    const int mantissa = i & 127;
    const float value = bfloat16_to_float(static_cast<uint16_t>(i));
    ASSERT_EQ(std::signbit(value), (i & 0x8000) != 0) << i;
    if (exponent == 255) {
      ASSERT_EQ(std::isnan(value), mantissa != 0) << i;
      ASSERT_EQ(std::isinf(value), mantissa == 0) << i;
      continue;
    }
    const double size =
        exponent == 0 ? std::ldexp(mantissa, -133) : std::ldexp(128 + mantissa, exponent - 134);
    ASSERT_EQ(std::fabs(value), size) << i;
  }
}

TEST(DType, EveryHalfRoundTrips) {
  for (uint32_t i = 0; i < 65536; ++i) {
    ASSERT_EQ(float_to_half(half_to_float(static_cast<uint16_t>(i))), i);
  }
}

// Between each pair of neighbouring finite halves: the midpoint goes to the even one, and the
// floats on either side of it to the nearer one.
TEST(DType, FloatToHalfRoundsToNearestEven) {
  for (uint16_t low = 0; low < 0x7bff; ++low) {
    const auto high = static_cast<uint16_t>(low + 1);
    const float middle = (half_to_float(low) + half_to_float(high)) / 2;  // exact in fp32
    const uint16_t even = low % 2 == 0 ? low : high;
    ASSERT_EQ(float_to_half(middle), even) << low;
    ASSERT_EQ(float_to_half(std::nextafterf(middle, 0.0f)), low) << low;
    ASSERT_EQ(float_to_half(std::nextafterf(middle, 1e9f)), high) << low;
    ASSERT_EQ(float_to_half(-middle), even | 0x8000) << low;
  }
}

TEST(DType, FloatToHalfAtTheEnds) {
  EXPECT_EQ(float_to_half(65504.0f), 0x7bff);
  EXPECT_EQ(float_to_half(std::nextafterf(65520.0f, 0.0f)), 0x7bff);
  EXPECT_EQ(float_to_half(65520.0f), 0x7c00);
  EXPECT_EQ(float_to_half(std::numeric_limits<float>::max()), 0x7c00);
  EXPECT_EQ(float_to_half(-std::numeric_limits<float>::infinity()), 0xfc00);
  EXPECT_EQ(float_to_half(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(float_to_half(-0.0f), 0x8000);
  EXPECT_EQ(float_to_half(0x1p-25f), 0);  // a tie: even is zero
  EXPECT_EQ(float_to_half(std::nextafterf(0x1p-25f, 1.0f)), 1);
  // A NaN whose upper payload bits are zero must not become Inf.
  EXPECT_EQ(float_to_half(std::bit_cast<float>(0x7f800001u)), 0x7e00);
  EXPECT_EQ(float_to_half(std::bit_cast<float>(0xffc02000u)), 0xfe01);
}

#ifdef __FLT16_MAX__
// The compiler's own conversion, over floats spread over all exponents and mantissas.
TEST(DType, FloatToHalfAgreesWithTheCompiler) {
  for (uint64_t i = 0; i < (uint64_t{1} << 32); i += 9973) {
    const float value = std::bit_cast<float>(static_cast<uint32_t>(i));
    if (std::isnan(value)) continue;
    const auto expected = std::bit_cast<uint16_t>(static_cast<_Float16>(value));
    ASSERT_EQ(float_to_half(value), expected) << value;
  }
}
#endif

template <typename Element>
std::vector<std::byte> unaligned_bytes(const std::vector<Element>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(Element) + 1);
  std::memcpy(bytes.data() + 1, values.data(), values.size() * sizeof(Element));
  return bytes;
}

TEST(DType, BulkConversionIsTheScalarOneUnalignedToo) {
  std::vector<uint16_t> all(65536);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  const auto bytes = unaligned_bytes(all);
  std::vector<float> out(all.size());
  for (const DType dtype : {DType::F16, DType::BF16}) {
    convert_to_float(dtype, std::span(bytes).subspan(1), out);
    for (size_t i = 0; i < all.size(); ++i) {
      const float expected =
          dtype == DType::F16 ? half_to_float(all[i]) : bfloat16_to_float(all[i]);
      ASSERT_EQ(std::bit_cast<uint32_t>(out[i]), std::bit_cast<uint32_t>(expected)) << i;
    }
  }
}

TEST(DType, BulkConversionOfWideTypes) {
  const auto doubles = unaligned_bytes(std::vector<double>{0.1, -1e300, 3});
  std::vector<float> out(3);
  convert_to_float(DType::F64, std::span(doubles).subspan(1), out);
  EXPECT_EQ(out[0], 0.1f);
  EXPECT_EQ(out[1], -std::numeric_limits<float>::infinity());
  EXPECT_EQ(out[2], 3.0f);
  const auto floats = unaligned_bytes(std::vector<float>{1.5f, -2.0f, 1e-40f});
  convert_to_float(DType::F32, std::span(floats).subspan(1), out);
  EXPECT_EQ(out, (std::vector<float>{1.5f, -2.0f, 1e-40f}));
  convert_to_float(DType::F16, {}, {});
}

TEST(DType, BulkConversionRefusesOtherTypesAndSizes) {
  std::vector<std::byte> bytes(4);
  std::vector<float> out(4);
  expect_bad_input([&] { convert_to_float(DType::F8_E4M3, bytes, out); }, {"F8_E4M3"});
  expect_bad_input([&] { convert_to_float(DType::F4, bytes, out); }, {"F4"});
  EXPECT_THROW(convert_to_float(DType::F32, bytes, out), Error);
}

}  // namespace
}  // namespace billm
