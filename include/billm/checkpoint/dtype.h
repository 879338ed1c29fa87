// Element types of tensors in files, as safetensors names them, and exact conversion to fp32.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "billm/base/half.h"

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

// The upper half of a binary32.
inline float bfloat16_to_float(uint16_t bfloat) {
  return std::bit_cast<float>(static_cast<uint32_t>(bfloat) << 16);
}

// Whether convert_to_float() reads it.
bool is_weight_dtype(DType dtype);

// Converts F64 (rounded), F32, F16 and BF16 to fp32; `data` may be unaligned and holds exactly
// out.size() elements. Element by element the same bits as the functions above. Any other dtype
// throws Error{kBadInput}: weights of that type mean nothing without their scales.
void convert_to_float(DType dtype, std::span<const std::byte> data, std::span<float> out);

}  // namespace billm
