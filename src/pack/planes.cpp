// The layout "planes" (docs/format.md): signs, classes, salient columns, N:M mask, scales, offsets,
// each one contiguous tensor without padding inside. Packing and decoding; planes_check.cpp checks.
#include "planes.h"

#include <utility>

#include "billm/base/error.h"
#include "layouts.h"

namespace billm {
namespace {

int64_t bytes_for_bits(int64_t bits) { return (bits + 7) / 8; }

// Writes the mask plane of a layer.
std::vector<std::byte> pack_mask(const QuantizedLinear& linear, const PlanesGeometry& geometry) {
  const LinearShape& shape = linear.shape;
  const auto rank_at = [&](int64_t row, int64_t first, int columns) {
    uint32_t mask = 0;
    for (int c = 0; c < columns; ++c) {
      if (linear.region[row * shape.cols + first + c] != kPrunedRegion) mask |= uint32_t{1} << c;
    }
    return mask_rank(mask);
  };
  BitWriter writer;
  uint64_t word = 0, place = 1;
  int ranks = 0;
  const auto flush = [&] {
    writer.put(word, geometry.words.bits);
    word = 0;
    place = 1;
    ranks = 0;
  };
  for (int64_t row = 0; row < shape.rows; ++row) {
    for (int64_t g = 0; g < geometry.full_groups; ++g) {
      word += place * rank_at(row, g * shape.nm.m, shape.nm.m);
      place *= geometry.words.combinations;
      if (++ranks == geometry.words.ranks) flush();
    }
  }
  if (ranks > 0) flush();
  if (geometry.tail_columns > 0) {
    for (int64_t row = 0; row < shape.rows; ++row) {
      writer.put(rank_at(row, geometry.full_groups * shape.nm.m, geometry.tail_columns),
                 geometry.tail_bits);
    }
  }
  return writer.take();
}

template <typename T>
void append(std::vector<std::byte>* bytes, T value) {
  const auto* begin = reinterpret_cast<const std::byte*>(&value);
  bytes->insert(bytes->end(), begin, begin + sizeof(T));
}

void append_scale(std::vector<std::byte>* bytes, float value, const QuantizedLinear& linear) {
  switch (linear.shape.scale_format) {
    case ScaleFormat::kLog8:
      append(bytes, log8_encode(value, linear.base));
      break;
    case ScaleFormat::kF16:
      append(bytes, float_to_half(value));
      break;
    case ScaleFormat::kF32:
      append(bytes, value);
      break;
  }
}

}  // namespace

std::vector<PlaneSpec> plane_specs(const LinearShape& shape) {
  const PlanesGeometry geometry(shape);
  const int64_t kept = geometry.kept();
  std::vector<PlaneSpec> specs;
  const auto add_bytes = [&](const char* name, int64_t bytes) {
    specs.push_back({name, "U8", {bytes}, bytes});
  };
  add_bytes("signs", bytes_for_bits(kept));
  if (shape.classes == 2) add_bytes("classes", bytes_for_bits(kept));
  if (shape.classes == 3) add_bytes("classes", (kept + 4) / 5);
  if (shape.salient_classes > 0) add_bytes("salient", bytes_for_bits(shape.cols));
  if (geometry.mask_bits() > 0) add_bytes("mask", bytes_for_bits(geometry.mask_bits()));
  const char* scale_dtype = shape.scale_format == ScaleFormat::kLog8  ? "U8"
                            : shape.scale_format == ScaleFormat::kF16 ? "F16"
                                                                      : "F32";
  const int scale_bytes = scale_format_bits(shape.scale_format) / 8;
  const int64_t scales = shape.blocks() * shape.regions() * shape.rows;
  specs.push_back(
      {"scales", scale_dtype, {shape.blocks(), shape.regions(), shape.rows}, scales * scale_bytes});
  if (shape.scale_format == ScaleFormat::kLog8) specs.push_back({"base", "F32", {1}, 4});
  const char* offset_dtype = shape.scale_format == ScaleFormat::kLog8 ? "I8" : scale_dtype;
  if (shape.offset_kind == OffsetKind::kBlock) {
    specs.push_back({"offsets",
                     offset_dtype,
                     {shape.blocks(), shape.rows},
                     shape.blocks() * shape.rows * scale_bytes});
  } else if (shape.offset_kind == OffsetKind::kRegion) {
    specs.push_back({"offsets",
                     offset_dtype,
                     {shape.blocks(), shape.regions(), shape.rows},
                     scales * scale_bytes});
  }
  return specs;
}

PackedLinear pack_planes(const QuantizedLinear& linear) {
  const LinearShape& shape = linear.shape;
  const PlanesGeometry geometry(shape);
  BitWriter signs, class_bits, salient;
  std::vector<std::byte> class_trits;
  int64_t entry = 0;
  for (size_t i = 0; i < linear.region.size(); ++i) {
    const int r = linear.region[i];
    if (r == kPrunedRegion) continue;
    const int t = r <= shape.classes ? r - 1 : r - 1 - shape.classes;
    signs.put(linear.code[i], 1);
    if (shape.classes == 2) class_bits.put(static_cast<uint64_t>(t), 1);
    if (shape.classes == 3) {
      if (entry % 5 == 0) class_trits.push_back(std::byte{0});
      class_trits.back() =
          static_cast<std::byte>(static_cast<int>(class_trits.back()) + t * kPow3[entry % 5]);
    }
    ++entry;
  }
  for (const uint8_t s : linear.salient) salient.put(s, 1);

  std::vector<std::byte> scales, offsets, base;
  for (const float value : linear.scale) append_scale(&scales, value, linear);
  append(&base, linear.base);
  const int64_t per_block = shape.offset_kind == OffsetKind::kBlock ? 1 : shape.regions();
  for (size_t i = 0; i < linear.offset.size(); ++i) {
    if (shape.scale_format != ScaleFormat::kLog8) {
      append_scale(&offsets, linear.offset[i], linear);
      continue;
    }
    const int64_t block = static_cast<int64_t>(i) / (per_block * shape.rows);
    const int64_t row = static_cast<int64_t>(i) % shape.rows;
    float largest = 0;
    for (int r = 1; r <= shape.regions(); ++r) {
      largest = std::max(largest, linear.scale[linear.scale_index(block, r, row)]);
    }
    const int8_t code = offset8_encode(linear.offset[i], largest);
    if (offset8_decode(code, largest) != linear.offset[i]) {
      throw Error(ErrorCode::kFailure, "quantized layer is inconsistent: an offset is not exact");
    }
    append(&offsets, code);
  }

  PackedLinear packed;
  packed.layout = "planes";
  packed.shape = shape;
  for (PlaneSpec& spec : plane_specs(shape)) {
    std::vector<std::byte> bytes;
    if (spec.name == "signs") bytes = signs.take();
    if (spec.name == "classes") {
      bytes = shape.classes == 3 ? std::move(class_trits) : class_bits.take();
    }
    if (spec.name == "salient") bytes = salient.take();
    if (spec.name == "mask") bytes = pack_mask(linear, geometry);
    if (spec.name == "scales") bytes = std::move(scales);
    if (spec.name == "base") bytes = std::move(base);
    if (spec.name == "offsets") bytes = std::move(offsets);
    if (static_cast<int64_t>(bytes.size()) != spec.bytes) {
      throw Error(ErrorCode::kFailure, "packing: plane " + spec.name + " has a wrong size");
    }
    packed.owned.push_back(std::move(bytes));
    packed.planes.push_back({spec.name, spec.dtype, spec.shape, packed.owned.back()});
  }
  return packed;
}

void decode_planes(const PackedLinear& packed, int64_t first_row, int64_t row_count, float* out) {
  const PlanesView view(packed);
  const LinearShape& shape = view.shape;
  const int regions = shape.regions();
  std::vector<uint8_t> kept;
  std::vector<float> scale(static_cast<size_t>(regions)), offset(static_cast<size_t>(regions));
  for (int64_t row = first_row; row < first_row + row_count; ++row, out += shape.cols) {
    view.kept_columns(row, &kept);
    int64_t entry = row * view.geometry.row_kept;
    for (int64_t block = 0; block < shape.blocks(); ++block) {
      for (int r = 0; r < regions; ++r) {
        scale[r] = view.scale((block * regions + r) * shape.rows + row);
        offset[r] = view.offset(block, r, row);
      }
      const int64_t end = std::min<int64_t>(shape.cols, (block + 1) * shape.block_size);
      for (int64_t col = block * shape.block_size; col < end; ++col) {
        if (kept[col] == 0) {
          out[col] = 0.0f;
          continue;
        }
        const int r = view.class_of(entry) + (view.is_salient(col) ? shape.classes : 0);
        const float signed_scale = get_bit(view.signs, entry) ? scale[r] : -scale[r];
        out[col] = shape.offset_kind == OffsetKind::kNone ? signed_scale : offset[r] + signed_scale;
        ++entry;
      }
    }
  }
}

QuantizedLinear unpack_planes(const PackedLinear& packed) {
  const PlanesView view(packed);
  const LinearShape& shape = view.shape;
  QuantizedLinear linear = make_quantized_linear(shape);
  linear.base = view.base;
  for (size_t i = 0; i < linear.scale.size(); ++i) linear.scale[i] = view.scale(i);
  for (int64_t block = 0; block < shape.blocks(); ++block) {
    for (int r = 0; r < shape.regions() && !linear.offset.empty(); ++r) {
      for (int64_t row = 0; row < shape.rows; ++row) {
        linear.offset[linear.offset_index(block, r + 1, row)] = view.offset(block, r, row);
      }
    }
  }
  for (int64_t col = 0; col < static_cast<int64_t>(linear.salient.size()); ++col) {
    linear.salient[col] = view.is_salient(col);
  }
  std::vector<uint8_t> kept;
  int64_t entry = 0;
  for (int64_t row = 0; row < shape.rows; ++row) {
    view.kept_columns(row, &kept);
    for (int64_t col = 0; col < shape.cols; ++col) {
      if (kept[col] == 0) continue;
      linear.region[row * shape.cols + col] = static_cast<uint8_t>(
          1 + view.class_of(entry) + (view.is_salient(col) ? shape.classes : 0));
      linear.code[row * shape.cols + col] = get_bit(view.signs, entry);
      ++entry;
    }
  }
  return linear;
}

}  // namespace billm
