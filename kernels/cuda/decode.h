// Bits to numbers: what the kernels do with the words that strips.h loads, and how activations are
// cut into two bytes. Everything here runs on the host, too, and is tested there for every input.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/strips.h"

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#else
#include <bit>

#include "billm/base/half.h"
#endif

namespace billm::kernels::cuda {

BILLM_HOST_DEVICE inline uint32_t float_bits(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
#endif
}

BILLM_HOST_DEVICE inline float float_of_bits(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

// (a & b) ^ c. As an instruction of its own: from two operators the compiler makes two, each with
// one of the constants.
BILLM_HOST_DEVICE inline uint32_t and_xor(uint32_t a, uint32_t b, uint32_t c) {
#if defined(__CUDA_ARCH__)
  uint32_t result;
  asm("lop3.b32 %0, %1, %2, %3, 0x6a;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
  return result;
#else
  return (a & b) ^ c;
#endif
}

// --- Weights as bytes --------------------------------------------------------------------------

// Four weights +-64 in the bytes of a word: byte i is bit 7 - k of octet i (1: +64). A shift and
// one three-input logic operation for four weights; 64 and not 1 because it takes one bit to change
// 0x40 = 64 into 0xc0 = -64.
inline constexpr int kSignUnit = 64;
BILLM_HOST_DEVICE inline uint32_t signs_to_bytes(uint32_t word, int k) {
  return and_xor(word << k, 0x80808080u, 0xc0c0c0c0u);
}
inline constexpr uint32_t kAllOnes = 0x40404040u;  // four times +64

// 0xff in the bytes of `places` that are `wanted`, else 0.
BILLM_HOST_DEVICE inline uint32_t bytes_equal(uint32_t places, uint32_t wanted) {
#if defined(__CUDA_ARCH__)
  return __vcmpeq4(places, wanted * 0x01010101u);
#else
  uint32_t mask = 0;
  for (int i = 0; i < 32; i += 8) {
    if (((places >> i) & 0xff) == (wanted & 0xff)) mask |= 0xffu << i;
  }
  return mask;
#endif
}

// --- Activations as two bytes ------------------------------------------------------------------

// x of a strip is q * scale, q an integer of 16 bits, and q = 256 * high + low with two signed
// bytes. The scale is that of the largest |x| of the strip.
inline constexpr int kLargestFixed = 32512;  // 127 * 256: `high` is at most 127
struct FixedScale {
  float inverse = 0;  // q = round(x * inverse)
  float scale = 0;
};

// `largest`: the bits of the largest |x|. Beyond finite numbers the scale is NaN, so that y is; an
// x whose square is no fp32 number counts as 0.
BILLM_HOST_DEVICE inline FixedScale fixed_scale(uint32_t largest) {
  const float value = float_of_bits(largest);
  if (largest >= 0x7f800000u) return {0, float_of_bits(0x7fc00000u)};
  if (value < 1e-30f) return {0, 0};
  return {float{kLargestFixed} / value, value / float{kLargestFixed}};
}

BILLM_HOST_DEVICE inline int to_fixed(float x, float inverse) {
  if (inverse == 0) return 0;  // x may be NaN
#if defined(__CUDA_ARCH__)
  return __float2int_rn(x * inverse);
#else
  return static_cast<int>(std::nearbyint(x * inverse));
#endif
}
BILLM_HOST_DEVICE inline int low_byte(int q) { return ((q + 128) & 255) - 128; }
BILLM_HOST_DEVICE inline int high_byte(int q) { return (q - low_byte(q)) / 256; }

// Four such bytes in a word; those of x are -127..127, as parts of q -128..127.
BILLM_HOST_DEVICE inline uint32_t pack_bytes(int a, int b, int c, int d) {
  return (static_cast<uint32_t>(a) & 255u) | (static_cast<uint32_t>(b) & 255u) << 8 |
         (static_cast<uint32_t>(c) & 255u) << 16 | static_cast<uint32_t>(d) << 24;
}

// The sum over hi and lo. Both are at most 64 * 128 * 128 in size for one plane, so the result is
// an int; for integers of up to 8 bits (255 times as much) it is not, hence the two forms.
BILLM_HOST_DEVICE inline float join_bytes(int high, int low) {
  return static_cast<float>(256 * high + low);
}
BILLM_HOST_DEVICE inline float join_large(int high, int low) {
  return 256.0f * static_cast<float>(high) + static_cast<float>(low);
}

// --- Halves ------------------------------------------------------------------------------------

BILLM_HOST_DEVICE inline float half_bits_to_float(uint16_t bits) {
#if defined(__CUDACC__)
  return __half2float(__ushort_as_half(bits));
#else
  return half_to_float(bits);
#endif
}
BILLM_HOST_DEVICE inline uint16_t float_to_half_bits(float value) {
#if defined(__CUDACC__)
  return __half_as_ushort(__float2half_rn(value));
#else
  return float_to_half(value);
#endif
}
BILLM_HOST_DEVICE inline float load_number(const void* numbers, bool halves, int64_t index) {
  return halves ? half_bits_to_float(static_cast<const uint16_t*>(numbers)[index])
                : static_cast<const float*>(numbers)[index];
}
BILLM_HOST_DEVICE inline void store_number(void* numbers, bool halves, int64_t index, float value) {
  if (halves) {
    static_cast<uint16_t*>(numbers)[index] = float_to_half_bits(value);
  } else {
    static_cast<float*>(numbers)[index] = value;
  }
}

// Two halves: the sum of each.
BILLM_HOST_DEVICE inline uint32_t add_halves(uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__)
  uint32_t sum;
  asm("add.rn.f16x2 %0, %1, %2;" : "=r"(sum) : "r"(a), "r"(b));
  return sum;
#else
  // fp32 has more than twice the mantissa, so rounding twice is rounding once.
  const auto one = [](uint32_t u, uint32_t v) {
    return uint32_t{float_to_half_bits(half_bits_to_float(static_cast<uint16_t>(u)) +
                                       half_bits_to_float(static_cast<uint16_t>(v)))};
  };
  return one(a & 0xffff, b & 0xffff) | one(a >> 16, b >> 16) << 16;
#endif
}

// Two weights -+c: c with its sign changed where the bit is 1. The low half takes bit 15 - k of the
// word, the high one bit 31 - k. `c` holds minus the coefficients, so that a 1 is plus.
BILLM_HOST_DEVICE inline uint32_t signs_to_halves(uint32_t word, int k, uint32_t c) {
  return and_xor(word << k, 0x80008000u, c);
}

// The 32 columns of a lane's line as halves: half h is bit half_bit(h) of the line's word, so that
// two neighbours are signs_to_halves(word, h / 2).
BILLM_HOST_DEVICE inline int half_bit(int h) { return ((h & 1) != 0 ? 31 : 15) - h / 2; }

// --- Levels ------------------------------------------------------------------------------------

// The level of row `row` of a tile at a level row.
BILLM_HOST_DEVICE inline float level_at(const DeviceLayer& layer, const float* log8, int64_t tile,
                                        int64_t level_row, int row) {
  const int64_t at = (tile * layer.level_rows + level_row) * kTileRows + row;
  return layer.level_kind == LevelKind::kLog8 ? log8[layer.codes[at]] : layer.levels[at];
}

// How many levels a segment with `planes` planes has stored.
BILLM_HOST_DEVICE inline int stored_levels(LevelKind kind, bool pruned, int planes) {
  return kind == LevelKind::kInteger ? 1 : planes - (pruned ? 1 : 0);
}

// The halved coefficients of P planes from a row's levels in growing order, the pruned one (0)
// included: plane_coefficients() of plane_tiles.h with indexes that the compiler knows, so that
// nothing of it is in memory.
template <int P>
BILLM_HOST_DEVICE inline void coefficients_of_levels(const float (&level)[P],
                                                     float (&coefficient)[P]) {
  coefficient[0] = 0.5f * (level[0] + level[P - 1]);
  BILLM_UNROLL
  for (int j = 1; j < P; ++j) coefficient[j] = 0.5f * (level[j] - level[j - 1]);
}

}  // namespace billm::kernels::cuda
