// How the CUDA kernels decode bits and numbers, for every input, on the CPU.
#include <gtest/gtest.h>

#include <cmath>
#include <span>
#include <vector>

#include "kernels/cuda/gemm_body.h"
#include "support/compare.h"
#include "support/cuda_testing.h"

namespace billm::test {
namespace {

namespace cuda = kernels::cuda;

int signed_byte(uint32_t word, int i) {
  return static_cast<int8_t>(static_cast<uint8_t>(word >> (8 * i)));
}

// Each bit of a word alone decides its byte: every value of every byte, and words of mixed bytes.
TEST(CudaDecode, SignsToBytes) {
  for (uint32_t value = 0; value < 256; ++value) {
    for (const uint32_t other : {0u, 0xffu, 0xa5u, value}) {
      const uint32_t word = value | other << 8 | (value ^ 0xff) << 16 | value << 24;
      for (int k = 0; k < 8; ++k) {
        const uint32_t bytes = cuda::signs_to_bytes(word, k);
        for (int i = 0; i < 4; ++i) {
          ASSERT_EQ(signed_byte(bytes, i), (word >> (8 * i + 7 - k)) & 1 ? 64 : -64);
        }
      }
    }
  }
}

TEST(CudaDecode, SignsToHalves) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const uint32_t word = bits | (bits * 40503u) << 16;
    const uint32_t c = uint32_t{float_to_half(-3.0f)} | uint32_t{float_to_half(-0.25f)} << 16;
    for (int k = 0; k < 16; ++k) {
      const uint32_t halves = cuda::signs_to_halves(word, k, c);
      ASSERT_EQ(half_to_float(static_cast<uint16_t>(halves)), (word >> (15 - k)) & 1 ? 3 : -3);
      ASSERT_EQ(half_to_float(static_cast<uint16_t>(halves >> 16)),
                (word >> (31 - k)) & 1 ? 0.25f : -0.25f);
      ASSERT_EQ(cuda::half_bit(2 * k), 15 - k);
      ASSERT_EQ(cuda::half_bit(2 * k + 1), 31 - k);
    }
  }
}

TEST(CudaDecode, BytesEqual) {
  for (uint32_t a = 0; a < 256; ++a) {
    for (uint32_t b = 0; b < 256; ++b) {
      const uint32_t mask = cuda::bytes_equal(a | b << 8 | a << 16 | (a ^ 1) << 24, b);
      ASSERT_EQ(mask, (a == b ? 0x00ff00ffu : 0) | 0xff00u | ((a ^ 1) == b ? 0xff000000u : 0));
    }
  }
}

TEST(CudaDecode, FixedPoint) {
  for (int q = -cuda::kLargestFixed; q <= cuda::kLargestFixed; ++q) {
    const int high = cuda::high_byte(q), low = cuda::low_byte(q);
    ASSERT_EQ(256 * high + low, q);
    ASSERT_TRUE(-127 <= high && high <= 127 && -128 <= low && low <= 127);
    ASSERT_EQ(cuda::join_bytes(high, low), static_cast<float>(q));
    const uint32_t word = cuda::pack_bytes(high, low, -high, low);
    ASSERT_EQ(signed_byte(word, 0), high);
    ASSERT_EQ(signed_byte(word, 1), low);
    ASSERT_EQ(signed_byte(word, 2), -high);
    ASSERT_EQ(signed_byte(word, 3), low);
  }
  for (const float largest : {1e-29f, 3e-5f, 1.0f, 65504.0f, 3e38f}) {
    const cuda::FixedScale scale = cuda::fixed_scale(cuda::float_bits(largest));
    for (int i = -1000; i <= 1000; ++i) {
      const float x = largest * (static_cast<float>(i) / 1000.0f);
      const int q = cuda::to_fixed(x, scale.inverse);
      ASSERT_LE(std::abs(q), cuda::kLargestFixed);
      ASSERT_LE(std::fabs(double{x} - double{scale.scale} * q), 0.502 * double{scale.scale});
    }
  }
  EXPECT_TRUE(std::isnan(cuda::fixed_scale(cuda::float_bits(INFINITY)).scale));
  EXPECT_TRUE(std::isnan(cuda::fixed_scale(cuda::float_bits(NAN) & 0x7fffffff).scale));
  EXPECT_EQ(cuda::fixed_scale(0).scale, 0);
  EXPECT_EQ(cuda::to_fixed(NAN, 0), 0);
}

TEST(CudaDecode, CoefficientsAreThoseOfPlaneTiles) {
  Random random(1);
  const auto compare_planes = [&](auto planes) {
    constexpr int kPlanes = decltype(planes)::value;
    for (const bool pruned : {false, true}) {
      if (pruned && kPlanes == 1) continue;
      float stored[kPlanes], level[kPlanes], actual[kPlanes], expected[kernels::kMaxPlanes];
      for (float& value : stored) value = random.normal();
      for (int i = 0; i < kPlanes; ++i) level[i] = !pruned ? stored[i] : i == 0 ? 0 : stored[i - 1];
      cuda::coefficients_of_levels(level, actual);
      kernels::plane_coefficients(kernels::LevelKind::kFloat, pruned, kPlanes, stored, expected);
      EXPECT_TRUE(close(actual, std::span<const float>(expected, kPlanes)));
    }
  };
  for (int i = 0; i < 100; ++i) {
    compare_planes(cuda::Number<1>{});
    compare_planes(cuda::Number<2>{});
    compare_planes(cuda::Number<3>{});
    compare_planes(cuda::Number<4>{});
  }
}

// Sums of two halves, rounded once: all pairs of a sample that has every exponent.
TEST(CudaDecode, AddHalves) {
  std::vector<uint16_t> sample;
  for (uint32_t bits = 0; bits < 0x7c00; bits += 97) {
    sample.push_back(static_cast<uint16_t>(bits));
    sample.push_back(static_cast<uint16_t>(bits | 0x8000));
  }
  for (const uint16_t a : sample) {
    for (const uint16_t b : sample) {
      // double holds the sum of two halves exactly; from there to the nearest half.
      const double exact = double{half_to_float(a)} + half_to_float(b);
      const uint32_t sum = cuda::add_halves(a | uint32_t{b} << 16, b | uint32_t{a} << 16);
      const float actual = half_to_float(static_cast<uint16_t>(sum));
      ASSERT_EQ(sum >> 16, sum & 0xffff);
      if (std::isinf(actual)) {
        ASSERT_GE(std::fabs(exact), 65520);
        continue;
      }
      for (const int step : {-1, 1}) {
        const float other = half_to_float(static_cast<uint16_t>((sum & 0xffff) + step));
        if (!std::isfinite(other)) continue;
        ASSERT_LE(std::fabs(actual - exact), std::fabs(other - exact));
      }
    }
  }
}

}  // namespace
}  // namespace billm::test
