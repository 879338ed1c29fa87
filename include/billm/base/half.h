// IEEE binary16 <-> binary32 by integer arithmetic: the same bits on every machine.
#pragma once

#include <bit>
#include <cstdint>

#include "billm/base/host_device.h"

namespace billm {

// IEEE binary16 -> binary32, exact. NaNs keep sign and payload (a signaling one stays so): the same
// bits on every machine, which a conversion instruction does not promise.
BILLM_HOST_DEVICE inline float half_to_float(uint16_t half) {
  constexpr uint32_t kRebias = uint32_t{127 - 15} << 23;
  const uint32_t magnitude = (half & 0x7fffu) << 13;  // exponent and mantissa in fp32's places
  const uint32_t exponent = magnitude & 0x0f800000u;
  const uint32_t normal = magnitude + kRebias;
  // Subnormal m * 2^-24: read as 2^-14 * (1 + m/1024), then 2^-14 is taken off. Exact.
  const uint32_t subnormal =
      std::bit_cast<uint32_t>(std::bit_cast<float>(normal + (1u << 23)) - 0x1p-14f);
  const uint32_t special = normal + kRebias;  // exponent 31 -> 255
  const uint32_t bits = exponent == 0 ? subnormal : (exponent == 0x0f800000u ? special : normal);
  return std::bit_cast<float>(bits | ((half & 0x8000u) << 16));
}

// binary32 -> binary16, round to nearest, ties to even. Beyond 65519.99 it gives Inf; a NaN stays a
// NaN with its sign and the upper payload bits (one is set if those are all zero).
BILLM_HOST_DEVICE inline uint16_t float_to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half = 0;
  if (magnitude > 0x7f800000u) {
    const uint32_t payload = (magnitude >> 13) & 0x3ffu;
    half = 0x7c00u | (payload != 0 ? payload : 0x200u);
  } else if (magnitude >= 0x477ff000u) {  // 65520: half way to 2^16, and up
    half = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {  // 2^-14: a normal half; a carry may enter the exponent
    const uint32_t odd = (magnitude >> 13) & 1u;
    half = (magnitude - (uint32_t{127 - 15} << 23) + 0xfffu + odd) >> 13;
  } else {
    // Adding 0.5 leaves round(value * 2^24) in the low mantissa bits, rounded by the fp32 addition.
    const float sum = std::bit_cast<float>(magnitude) + 0.5f;
    half = std::bit_cast<uint32_t>(sum) - std::bit_cast<uint32_t>(0.5f);
  }
  return static_cast<uint16_t>(sign | half);
}

// The value that fp16 storage leaves of an fp32 number.
BILLM_HOST_DEVICE inline float round_to_half(float value) {
  return half_to_float(float_to_half(value));
}

}  // namespace billm
