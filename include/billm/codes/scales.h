// How scales and offsets are stored: fp32, fp16, or one byte on a logarithmic grid.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <string>

#include "billm/base/half.h"

namespace billm {

// Stored by name in the packed file: do not rename or renumber.
enum class ScaleFormat : uint8_t { kLog8 = 0, kF16 = 1, kF32 = 2 };
const char* scale_format_name(ScaleFormat format);
ScaleFormat scale_format_from_name(const std::string& name);  // throws Error{kBadInput}
int scale_format_bits(ScaleFormat format);

// 2^(i/16) rounded to fp32, i = 0..15. Constants, so that every machine decodes the same bits.
inline constexpr std::array<float, 16> kLog8Steps = {
    0x1p+0f,        0x1.0b5586p+0f, 0x1.172b84p+0f, 0x1.2387a6p+0f, 0x1.306fep+0f,  0x1.3dea64p+0f,
    0x1.4bfdaep+0f, 0x1.5ab07ep+0f, 0x1.6a09e6p+0f, 0x1.7a1148p+0f, 0x1.8ace54p+0f, 0x1.9c4918p+0f,
    0x1.ae89fap+0f, 0x1.c199bep+0f, 0x1.d5818ep+0f, 0x1.ea4afap+0f};

// 2^((code - 255) / 16) in fp32 for every code; code 0 means 0. Exact: kLog8Steps times a power
// of 2.
constexpr std::array<float, 256> log8_table() {
  std::array<float, 256> table = {};
  float octave = 1.0f;
  for (int step = 0; step > -255; --step) {  // step = code - 255
    const int position = ((step % 16) + 16) % 16;
    if (position == 15) octave *= 0.5f;
    table[static_cast<size_t>(step + 255)] = kLog8Steps[static_cast<size_t>(position)] * octave;
  }
  return table;
}
inline constexpr std::array<float, 256> kLog8Factors = log8_table();
inline float log8_decode(uint8_t code, float base) { return base * kLog8Factors[code]; }
// The code whose value is nearest to `scale` (>= 0; above base: 255). Ties take the lower code.
uint8_t log8_encode(float scale, float base);

// Offset code in [-127, 127] in units of largest / 128; `largest` is the largest scale of the same
// row and block.
inline float offset8_decode(int8_t code, float largest) {
  return static_cast<float>(code) * (largest * 0.0078125f);
}
int8_t offset8_encode(float offset, float largest);

}  // namespace billm
