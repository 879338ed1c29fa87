// Element types of tensors in files, as safetensors names them, and exact conversion to fp32.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace billm {

// In the order of the safetensors format: tensors are stored by descending dtype, so that each one
// is aligned to its own element size. The values are not stored anywhere, only the names are.
enum class DType : uint8_t {
  BOOL,
  F4,
  F6_E2M3,
  F6_E3M2,
  U8,
  I8,
  F8_E5M2,
  F8_E4M3,
  F8_E8M0,
  F8_E4M3FNUZ,
  F8_E5M2FNUZ,
  I16,
  U16,
  F16,
  BF16,
  I32,
  U32,
  F32,
  C64,
  F64,
  I64,
  U64,
};

struct DTypeRow {
  DType dtype;
  const char* name;  // as written in the file
  int bits;          // of one element; 4 and 6 exist, so not bytes
};

// One row per DType, indexed by its value.
std::span<const DTypeRow> dtype_table();
const char* dtype_name(DType dtype);
int dtype_bits(DType dtype);
// Bytes of one element. Throws Error{kFailure} for the types of less than a byte.
int64_t dtype_bytes(DType dtype);
std::optional<DType> parse_dtype(std::string_view name);

// Bytes of a dense tensor, or nothing if the product overflows int64, a dimension is negative or
// the bits do not fill whole bytes. An empty shape is a scalar: one element.
std::optional<int64_t> tensor_bytes(DType dtype, std::span<const int64_t> shape);

// "[11008, 4096]", for messages.
std::string shape_text(std::span<const int64_t> shape);

// IEEE binary16 -> binary32, exact. NaNs keep sign and payload (a signaling one stays so): the same
// bits on every machine, which a conversion instruction does not promise.
inline float half_to_float(uint16_t half) {
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

// The upper half of a binary32.
inline float bfloat16_to_float(uint16_t bfloat) {
  return std::bit_cast<float>(static_cast<uint32_t>(bfloat) << 16);
}

// binary32 -> binary16, round to nearest, ties to even. Beyond 65519.99 it gives Inf; a NaN stays a
// NaN with its sign and the upper payload bits (one is set if those are all zero).
inline uint16_t float_to_half(float value) {
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

// Converts F64 (rounded), F32, F16 and BF16 to fp32; `data` may be unaligned and holds exactly
// out.size() elements. Element by element the same bits as the functions above. Any other dtype
// throws Error{kBadInput}: weights of that type mean nothing without their scales.
void convert_to_float(DType dtype, std::span<const std::byte> data, std::span<float> out);

}  // namespace billm
