// Geometry and read access of the layout "planes" (docs/format.md), shared by its packer, decoder
// and checker.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "billm/pack/packed_linear.h"
#include "bits.h"

namespace billm {

inline constexpr int kPow3[5] = {1, 3, 9, 27, 81};

// The numbers that follow from a layer's shape.
struct PlanesGeometry {
  explicit PlanesGeometry(const LinearShape& shape) : shape_(shape) {
    if (shape.nm.active()) {
      words = mask_words(shape.nm.n, shape.nm.m);
      full_groups = shape.cols / shape.nm.m;
      tail_columns = static_cast<int>(shape.cols % shape.nm.m);
      tail_kept = shape.nm.kept(tail_columns);
      tail_bits = tail_columns > 0 ? rank_bits(tail_columns, tail_kept) : 0;
      row_kept = full_groups * shape.nm.n + tail_kept;
      full_words = (shape.rows * full_groups + words.ranks - 1) / words.ranks;
    } else {
      row_kept = shape.cols;
    }
  }
  int64_t kept() const { return row_kept * shape_.rows; }
  int64_t mask_bits() const { return full_words * words.bits + shape_.rows * tail_bits; }

  const LinearShape& shape_;
  MaskWords words{1, 1, 0};
  int64_t full_groups = 0, full_words = 0, row_kept = 0;
  int tail_columns = 0, tail_kept = 0, tail_bits = 0;
};

struct PlaneSpec {
  std::string name, dtype;
  std::vector<int64_t> shape;
  int64_t bytes;
};

// The planes that a layer of this shape has, in file order.
std::vector<PlaneSpec> plane_specs(const LinearShape& shape);

template <typename T>
T load(const std::byte* bytes, int64_t index) {
  T value;
  std::memcpy(&value, bytes + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

inline float load_float(const std::byte* bytes, int64_t index, ScaleFormat format) {
  return format == ScaleFormat::kF16 ? half_to_float(load<uint16_t>(bytes, index))
                                     : load<float>(bytes, index);
}

// Planes of a layer by role, for decoding.
struct PlanesView {
  explicit PlanesView(const PackedLinear& packed) : shape(packed.shape), geometry(shape) {
    const auto bytes_of = [&](const char* name) {
      const Plane* plane = packed.find(name);
      return plane == nullptr ? nullptr : plane->bytes.data();
    };
    signs = bytes_of("signs");
    classes = bytes_of("classes");
    salient = bytes_of("salient");
    mask = bytes_of("mask");
    scales = bytes_of("scales");
    offsets = bytes_of("offsets");
    if (const std::byte* stored = bytes_of("base")) base = load<float>(stored, 0);
    for (uint32_t rank = 0; mask != nullptr && rank < geometry.words.combinations; ++rank) {
      mask_of_rank.push_back(static_cast<uint16_t>(mask_from_rank(rank, shape.nm.n)));
    }
  }

  float scale(int64_t index) const {
    return shape.scale_format == ScaleFormat::kLog8
               ? log8_decode(static_cast<uint8_t>(scales[index]), base)
               : load_float(scales, index, shape.scale_format);
  }
  // The largest scale of (block, row): the unit of log8 offsets.
  float largest_scale(int64_t block, int64_t row) const {
    float largest = 0;
    for (int r = 0; r < shape.regions(); ++r) {
      largest = std::max(largest, scale((block * shape.regions() + r) * shape.rows + row));
    }
    return largest;
  }
  // Offset of (block, region r = 0..R-1, row); 0 without offsets.
  float offset(int64_t block, int r, int64_t row) const {
    if (shape.offset_kind == OffsetKind::kNone) return 0.0f;
    const int64_t index = shape.offset_kind == OffsetKind::kBlock
                              ? block * shape.rows + row
                              : (block * shape.regions() + r) * shape.rows + row;
    if (shape.scale_format == ScaleFormat::kLog8) {
      return offset8_decode(load<int8_t>(offsets, index), largest_scale(block, row));
    }
    return load_float(offsets, index, shape.scale_format);
  }
  int class_of(int64_t entry) const {
    if (shape.classes == 1) return 0;
    if (shape.classes == 2) return get_bit(classes, entry) ? 1 : 0;
    return static_cast<int>(classes[entry / 5]) / kPow3[entry % 5] % 3;
  }
  bool is_salient(int64_t col) const { return shape.salient_classes > 0 && get_bit(salient, col); }

  // Kept columns of a row as bytes 0/1, [cols].
  void kept_columns(int64_t row, std::vector<uint8_t>* kept) const {
    kept->assign(static_cast<size_t>(shape.cols), 1);
    if (!shape.nm.active() || shape.nm.n == shape.nm.m) return;
    const uint64_t combinations = geometry.words.combinations;
    const int64_t first = row * geometry.full_groups;
    uint64_t word = 0;
    for (int64_t g = 0; g < geometry.full_groups; ++g) {
      const int64_t index = first + g;
      const int64_t place = index % geometry.words.ranks;
      if (g == 0 || place == 0) {
        word =
            get_bits(mask, index / geometry.words.ranks * geometry.words.bits, geometry.words.bits);
        for (int64_t skip = place; skip > 0; --skip) word /= combinations;
      }
      set_group(kept, g * shape.nm.m, shape.nm.m, mask_of_rank[word % combinations]);
      word /= combinations;
    }
    if (geometry.tail_columns > 0) {
      set_group(kept, geometry.full_groups * shape.nm.m, geometry.tail_columns,
                mask_from_rank(tail_rank(row), geometry.tail_kept));
    }
  }
  uint32_t tail_rank(int64_t row) const {
    return static_cast<uint32_t>(
        get_bits(mask, geometry.full_words * geometry.words.bits + row * geometry.tail_bits,
                 geometry.tail_bits));
  }
  static void set_group(std::vector<uint8_t>* kept, int64_t first, int columns, uint32_t mask) {
    for (int c = 0; c < columns; ++c) (*kept)[first + c] = (mask >> c) & 1;
  }

  const LinearShape& shape;
  PlanesGeometry geometry;
  const std::byte *signs, *classes, *salient, *mask, *scales, *offsets;
  float base = 0;
  std::vector<uint16_t> mask_of_rank;  // bit c: column c of the group is kept
};

}  // namespace billm
