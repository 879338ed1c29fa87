// Element types: the table and the bulk conversions (see include/billm/checkpoint/dtype.h).
#include "billm/checkpoint/dtype.h"

#include <array>
#include <cstring>

#include "billm/base/error.h"

namespace billm {
namespace {

static_assert(std::endian::native == std::endian::little, "tensor files are little-endian");

constexpr std::array kTable = {
    DTypeRow{DType::BOOL, "BOOL", 8},
    DTypeRow{DType::F4, "F4", 4},
    DTypeRow{DType::F6_E2M3, "F6_E2M3", 6},
    DTypeRow{DType::F6_E3M2, "F6_E3M2", 6},
    DTypeRow{DType::U8, "U8", 8},
    DTypeRow{DType::I8, "I8", 8},
    DTypeRow{DType::F8_E5M2, "F8_E5M2", 8},
    DTypeRow{DType::F8_E4M3, "F8_E4M3", 8},
    DTypeRow{DType::F8_E8M0, "F8_E8M0", 8},
    DTypeRow{DType::F8_E4M3FNUZ, "F8_E4M3FNUZ", 8},
    DTypeRow{DType::F8_E5M2FNUZ, "F8_E5M2FNUZ", 8},
    DTypeRow{DType::I16, "I16", 16},
    DTypeRow{DType::U16, "U16", 16},
    DTypeRow{DType::F16, "F16", 16},
    DTypeRow{DType::BF16, "BF16", 16},
    DTypeRow{DType::I32, "I32", 32},
    DTypeRow{DType::U32, "U32", 32},
    DTypeRow{DType::F32, "F32", 32},
    DTypeRow{DType::C64, "C64", 64},
    DTypeRow{DType::F64, "F64", 64},
    DTypeRow{DType::I64, "I64", 64},
    DTypeRow{DType::U64, "U64", 64},
};

constexpr bool table_is_indexed_by_value() {
  for (size_t i = 0; i < kTable.size(); ++i) {
    if (static_cast<size_t>(kTable[i].dtype) != i) return false;
  }
  return true;
}
static_assert(table_is_indexed_by_value());

const DTypeRow& row(DType dtype) { return kTable.at(static_cast<size_t>(dtype)); }

// memcpy, since safetensors does not promise alignment; the compiler turns it into vector loads.
template <typename Source, typename Convert>
void convert_each(const std::byte* data, std::span<float> out, Convert convert) {
  for (size_t i = 0; i < out.size(); ++i) {
    Source value;
    std::memcpy(&value, data + i * sizeof(Source), sizeof(Source));
    out[i] = convert(value);
  }
}

}  // namespace

std::span<const DTypeRow> dtype_table() { return kTable; }

const char* dtype_name(DType dtype) { return row(dtype).name; }

int dtype_bits(DType dtype) { return row(dtype).bits; }

int64_t dtype_bytes(DType dtype) {
  const int bits = dtype_bits(dtype);
  if (bits < 8) {
    throw Error(ErrorCode::kFailure,
                std::string("dtype ") + dtype_name(dtype) + ": less than a byte per element");
  }
  return bits / 8;
}

std::optional<DType> parse_dtype(std::string_view name) {
  for (const DTypeRow& entry : kTable) {
    if (name == entry.name) return entry.dtype;
  }
  return std::nullopt;
}

std::optional<int64_t> tensor_bytes(DType dtype, std::span<const int64_t> shape) {
  int64_t bits = 1;
  for (const int64_t dimension : shape) {
    if (dimension < 0 || __builtin_mul_overflow(bits, dimension, &bits)) return std::nullopt;
  }
  if (__builtin_mul_overflow(bits, int64_t{dtype_bits(dtype)}, &bits)) return std::nullopt;
  if (bits % 8 != 0) return std::nullopt;
  return bits / 8;
}

std::string shape_text(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    if (i == 16) return text + "... (" + std::to_string(shape.size()) + " dimensions)]";
    text += std::to_string(shape[i]);
  }
  return text + "]";
}

bool is_weight_dtype(DType dtype) {
  return dtype == DType::F64 || dtype == DType::F32 || dtype == DType::F16 || dtype == DType::BF16;
}

void convert_to_float(DType dtype, std::span<const std::byte> data, std::span<float> out) {
  if (!is_weight_dtype(dtype)) {
    throw bad_input(std::string("dtype of weights: expected F16, BF16, F32 or F64, got ") +
                    dtype_name(dtype));
  }
  if (data.size() != out.size() * static_cast<size_t>(dtype_bytes(dtype))) {
    throw Error(ErrorCode::kFailure, "convert_to_float: " + std::to_string(data.size()) +
                                         " bytes for " + std::to_string(out.size()) + " elements");
  }
  if (out.empty()) return;
  if (dtype == DType::F32) {
    std::memcpy(out.data(), data.data(), data.size());
  } else if (dtype == DType::F16) {
    convert_each<uint16_t>(data.data(), out, half_to_float);
  } else if (dtype == DType::BF16) {
    convert_each<uint16_t>(data.data(), out, bfloat16_to_float);
  } else {
    convert_each<double>(data.data(), out, [](double value) { return static_cast<float>(value); });
  }
}

}  // namespace billm
