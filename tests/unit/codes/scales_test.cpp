// Scale formats: the log8 grid against its definition in docs/format.md, fp16, offsets.
#include "billm/codes/scales.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "billm/base/error.h"
#include "support/random_layer.h"

namespace billm {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(Log8, StepsAreRoundedPowers) {
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(kLog8Steps[static_cast<size_t>(i)], static_cast<float>(std::exp2(i / 16.0))) << i;
  }
}

TEST(Log8, EveryCode) {
  EXPECT_EQ(log8_decode(0, 3.0f), 0.0f);
  EXPECT_EQ(log8_decode(255, 3.0f), 3.0f);
  EXPECT_EQ(log8_decode(239, 3.0f), 1.5f);
  for (int code = 1; code < 256; ++code) {
    const double octave = std::floor((code - 255) / 16.0);
    const auto step = static_cast<size_t>(code - 255 - 16 * octave);
    const float factor = static_cast<float>(std::ldexp(kLog8Steps[step], static_cast<int>(octave)));
    EXPECT_EQ(log8_decode(static_cast<uint8_t>(code), 0.7f), 0.7f * factor) << code;
    EXPECT_GT(log8_decode(static_cast<uint8_t>(code), 0.7f),
              log8_decode(static_cast<uint8_t>(code - 1), 0.7f));
    for (const float base : {1.0f, 0.7f, 1e-20f, 1e20f}) {
      EXPECT_EQ(log8_encode(log8_decode(static_cast<uint8_t>(code), base), base), code);
    }
  }
}

TEST(Log8, EncodesToTheNearest) {
  test::Random random(1);
  for (int i = 0; i < 2000; ++i) {
    const float base = 0.1f + random.uniform();
    const float scale = base * std::exp2(-17 * random.uniform());
    int best = 0;
    for (int code = 1; code < 256; ++code) {
      if (std::fabs(log8_decode(static_cast<uint8_t>(code), base) - scale) <
          std::fabs(log8_decode(static_cast<uint8_t>(best), base) - scale)) {
        best = code;
      }
    }
    const uint8_t code = log8_encode(scale, base);
    ASSERT_EQ(int{code}, best) << scale << " of " << base;
    if (scale >= log8_decode(1, base)) {
      ASSERT_LE(std::fabs(log8_decode(code, base) - scale), 0.022f * scale);
    }
  }
}

TEST(Log8, OutsideOfTheGrid) {
  EXPECT_EQ(log8_encode(5.0f, 3.0f), 255);
  EXPECT_EQ(log8_encode(kInf, 3.0f), 255);
  EXPECT_EQ(log8_encode(0.0f, 3.0f), 0);
  EXPECT_EQ(log8_encode(-1.0f, 3.0f), 0);
  EXPECT_EQ(log8_encode(kNan, 3.0f), 0);
  EXPECT_EQ(log8_encode(1.0f, 0.0f), 0);
  EXPECT_EQ(log8_encode(1.0f, kNan), 0);
  EXPECT_EQ(log8_encode(log8_decode(1, 3.0f) / 2, 3.0f), 0);  // a tie takes the lower code
}

TEST(Offset8, GridAndLimits) {
  for (int code = -127; code <= 127; ++code) {
    const float offset = offset8_decode(static_cast<int8_t>(code), 0.3f);
    EXPECT_EQ(offset, static_cast<float>(code) * (0.3f / 128));
    EXPECT_EQ(offset8_encode(offset, 0.3f), code);
  }
  EXPECT_EQ(offset8_encode(1.0f, 0.5f), 127);
  EXPECT_EQ(offset8_encode(-1.0f, 0.5f), -127);
  EXPECT_EQ(offset8_encode(1.0f, 0.0f), 0);
}

TEST(Half, RoundsToNearestEven) {
  EXPECT_EQ(float_to_half(1.0f), 0x3c00);
  EXPECT_EQ(float_to_half(-2.0f), 0xc000);
  EXPECT_EQ(float_to_half(65504.0f), 0x7bff);
  EXPECT_EQ(float_to_half(65519.0f), 0x7bff);
  EXPECT_EQ(float_to_half(65520.0f), 0x7c00);
  EXPECT_EQ(float_to_half(0x1p-24f), 0x0001);
  EXPECT_EQ(float_to_half(0x1p-25f), 0x0000);  // a tie: even
  EXPECT_EQ(float_to_half(1 + 0x1p-11f), 0x3c00);
  EXPECT_EQ(float_to_half(1 + 0x3p-11f), 0x3c02);
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = half_to_float(static_cast<uint16_t>(bits));
    if (std::isnan(value)) continue;
    ASSERT_EQ(float_to_half(value), bits);
    ASSERT_EQ(round_to_half(value), value);
  }
}

TEST(ScaleFormat, Names) {
  for (const ScaleFormat format : {ScaleFormat::kLog8, ScaleFormat::kF16, ScaleFormat::kF32}) {
    EXPECT_EQ(scale_format_from_name(scale_format_name(format)), format);
  }
  EXPECT_EQ(scale_format_bits(ScaleFormat::kLog8), 8);
  EXPECT_EQ(scale_format_bits(ScaleFormat::kF16), 16);
  EXPECT_EQ(scale_format_bits(ScaleFormat::kF32), 32);
  for (const char* name : {"", "log", "LOG8", "f64"}) {
    EXPECT_THROW(scale_format_from_name(name), Error) << name;
  }
}

}  // namespace
}  // namespace billm
