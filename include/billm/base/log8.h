// The logarithmic grid of 8-bit scales (docs/format.md, "log8") and the linear one of 8-bit
// offsets: the same bits on every machine.
#pragma once

#include <math.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "billm/base/host_device.h"

namespace billm {

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

// The code whose value base * factors[code] is nearest to `scale` (>= 0; above base: 255). Ties
// take the lower code. factors: kLog8Factors, or a copy of it.
BILLM_HOST_DEVICE inline uint8_t log8_nearest(float scale, float base, const float* factors) {
  if (!(scale > 0) || !(base > 0)) return 0;
  // The grid is monotone, so the nearest value is one of two neighbours.
  int low = 0, high = 255;  // value(low) <= scale (low = 0 means 0)
  if (scale >= base * factors[255]) return 255;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (base * factors[middle] <= scale) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const float below = base * factors[low], above = base * factors[high];
  return static_cast<uint8_t>(above - scale < scale - below ? high : low);
}

// Offset code in [-127, 127] in units of largest / 128; `largest` is the largest scale of the same
// row and block.
BILLM_HOST_DEVICE inline float offset8_decode(int8_t code, float largest) {
  return static_cast<float>(code) * (largest * 0.0078125f);
}
BILLM_HOST_DEVICE inline int8_t offset8_encode(float offset, float largest) {
  if (!(largest > 0)) return 0;
  const float steps = nearbyintf(offset / (largest * 0.0078125f));
  return static_cast<int8_t>(steps < -127.0f ? -127.0f : steps > 127.0f ? 127.0f : steps);
}

}  // namespace billm
