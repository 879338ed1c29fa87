// Geometry and read access of the layout "planes" (docs/format.md), shared by its packer, decoder
// and checker.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "billm/pack/packed_planes.h"
#include "bits.h"

namespace billm {

// The five digits of a byte of three classes; larger bytes than 242 are refused by check_packed.
inline constexpr auto kDigits3 = [] {
  std::array<std::array<uint8_t, 5>, 256> digits{};
  for (int byte = 0; byte < 256; ++byte) {
    for (int i = 0; i < 5; ++i) digits[byte][i] = static_cast<uint8_t>(byte / kPow3[i] % 3);
  }
  return digits;
}();

// The numbers that follow from a layer's shape.
struct PlanesGeometry {
  explicit PlanesGeometry(const RegionFormat& shape) : shape_(shape) {
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
    class_radix = std::max(shape.classes, shape.salient_classes);
  }
  int64_t kept() const { return row_kept * shape_.rows; }
  // S > K: only the weights of salient columns have a class digit.
  bool salient_digits() const { return shape_.salient_classes > shape_.classes; }
  int64_t mask_bits() const { return full_words * words.bits + shape_.rows * tail_bits; }

  const RegionFormat& shape_;
  MaskWords words{1, 1, 0};
  int64_t full_groups = 0, full_words = 0, row_kept = 0;
  int tail_columns = 0, tail_kept = 0, tail_bits = 0;
  int class_radix = 1;  // classes that a digit of the plane `classes` tells apart
};

struct PlaneSpec {
  std::string name, dtype;
  std::vector<int64_t> shape;
  int64_t bytes;
};

// What the sizes of planes depend on besides the shape. The planes that say it ("salient",
// "integer_counts", "index_counts") have sizes that depend on the shape only.
struct PlaneCounts {
  int64_t salient_columns = 0;
  int64_t integers = 0;       // scattered ones
  int64_t index_entries = 0;  // deltas of the index
};

// The planes that a layer of this shape has, in file order.
std::vector<PlaneSpec> plane_specs(const RegionFormat& shape, int index_bits,
                                   const PlaneCounts& counts);
inline bool is_counting_plane(const std::string& name) {
  return name == "salient" || name == "integer_counts" || name == "index_counts";
}

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

// Counts per row are U16 where a row's columns fit, else U32.
inline bool short_counts(const RegionFormat& shape) { return shape.cols <= 65535; }
inline int64_t load_count(const std::byte* counts, int64_t row, const RegionFormat& shape) {
  return short_counts(shape) ? int64_t{load<uint16_t>(counts, row)}
                             : int64_t{load<uint32_t>(counts, row)};
}

// Planes of a layer by role, for decoding.
struct PlanesView {
  explicit PlanesView(const PackedPlanes& packed) : shape(packed.shape), geometry(shape) {
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
    column_scales = bytes_of("column_scales");
    integers = bytes_of("integers");
    steps = bytes_of("steps");
    zeros = bytes_of("zeros");
    index = bytes_of("index");
    index_bits = packed.index_bits;
    if (shape.scattered) {
      integer_start = row_starts(bytes_of("integer_counts"));
      if (index_bits > 0) index_start = row_starts(bytes_of("index_counts"));
    }
    for (int64_t col = 0; shape.salient_classes > 0 && col < shape.cols; ++col) {
      is_salient_column.push_back(get_bit(salient, col));
      salient_columns += is_salient_column.back();
    }
    if (const std::byte* stored = bytes_of("base")) base = load<float>(stored, 0);
    for (uint32_t rank = 0; mask != nullptr && rank < geometry.words.combinations; ++rank) {
      const uint32_t kept = mask_from_rank(rank, shape.nm.n);
      auto& bytes = kept_of_rank.emplace_back();
      for (int c = 0; c < kMostGroup; ++c) bytes[c] = (kept >> c) & 1;
    }
  }

  float scale(int64_t index) const {
    return shape.scale_format == ScaleFormat::kLog8
               ? log8_decode(static_cast<uint8_t>(scales[index]), base)
               : load_float(scales, index, shape.scale_format);
  }
  // The largest scale of (group, row): the unit of log8 offsets.
  float largest_scale(int64_t group, int64_t row) const {
    float largest = 0;
    for (int r = 0; r < shape.regions(); ++r) {
      largest = std::max(largest, scale((group * shape.regions() + r) * shape.rows + row));
    }
    return largest;
  }
  // Offset of (group, region r = 0..R-1, row); 0 without offsets.
  float offset(int64_t group, int r, int64_t row) const {
    if (shape.offset_kind == OffsetKind::kNone) return 0.0f;
    const int64_t index = shape.offset_kind == OffsetKind::kBlock
                              ? group * shape.rows + row
                              : (group * shape.regions() + r) * shape.rows + row;
    if (shape.scale_format == ScaleFormat::kLog8) {
      return offset8_decode(load<int8_t>(offsets, index), largest_scale(group, row));
    }
    return load_float(offsets, index, shape.scale_format);
  }
  float column_scale(int64_t col) const {
    return half_to_float(load<uint16_t>(column_scales, col));
  }
  float step(int64_t i) const { return half_to_float(load<uint16_t>(steps, i)); }
  int zero(int64_t i) const {
    return static_cast<int>(get_bits(zeros, i * shape.integer_bits, shape.integer_bits));
  }
  int integer(int64_t entry) const {
    return static_cast<int>(get_bits(integers, entry * shape.integer_bits, shape.integer_bits));
  }
  // Digit `entry` of the plane `classes`.
  int class_of(int64_t entry) const {
    if (geometry.class_radix == 1) return 0;
    if (geometry.class_radix == 2) return get_bit(classes, entry) ? 1 : 0;
    return kDigits3[static_cast<size_t>(classes[entry / 5])][entry % 5];
  }

  // Kept columns of a row as bytes 0/1, [cols] and room for kMostGroup more.
  void kept_columns(int64_t row, std::vector<uint8_t>* kept) const {
    kept->assign(static_cast<size_t>(shape.cols + kMostGroup), 1);
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
      std::memcpy(kept->data() + g * shape.nm.m, kept_of_rank[word % combinations].data(),
                  kMostGroup);  // the next group writes over what is too much
      word /= combinations;
    }
    if (geometry.tail_columns > 0) {
      const uint32_t mask = mask_from_rank(tail_rank(row), geometry.tail_kept);
      uint8_t* tail = kept->data() + geometry.full_groups * shape.nm.m;
      for (int c = 0; c < geometry.tail_columns; ++c) tail[c] = (mask >> c) & 1;
    }
  }
  uint32_t tail_rank(int64_t row) const {
    return static_cast<uint32_t>(
        get_bits(mask, geometry.full_words * geometry.words.bits + row * geometry.tail_bits,
                 geometry.tail_bits));
  }
  // Marks the scattered integers of a row with 2.
  void integer_columns(int64_t row, std::vector<uint8_t>* kept) const {
    if (!shape.scattered) return;
    if (index_bits == 0) {
      for (int64_t col = 0; col < shape.cols; ++col) {
        if (get_bit(index, row * shape.cols + col)) (*kept)[col] = 2;
      }
      return;
    }
    const uint64_t skip = (uint64_t{1} << index_bits) - 1;
    int64_t col = 0;
    for (int64_t entry = index_start[row]; entry < index_start[row + 1]; ++entry) {
      const uint64_t delta = get_bits(index, entry * index_bits, index_bits);
      col += static_cast<int64_t>(delta);
      if (delta != skip) (*kept)[col++] = 2;
    }
  }
  struct RowBuffers {
    std::vector<uint8_t> kept, digits;
  };
  // Where the next weights of a row are in the streams.
  struct Cursor {
    int64_t binary = 0, integer = 0, salient = 0;
  };
  // The start of a row; `kept` gets what each of its columns holds: 0 pruned, 1 binary, 2 integer.
  Cursor start_row(int64_t row, std::vector<uint8_t>* kept) const {
    kept_columns(row, kept);
    integer_columns(row, kept);
    const int64_t integers_before = shape.scattered ? integer_start[row] : 0;
    return {row * geometry.row_kept - integers_before, integers_before, row * salient_columns};
  }
  // Calls binary(col, r, sign bit), r = 0..R-1, for the binary weights in columns [first, end) of
  // a row, and integer(col, code) for the scattered integers. Ranges follow each other.
  template <typename Binary, typename Integer>
  void visit(int64_t first, int64_t end, const std::vector<uint8_t>& kept, Cursor* cursor,
             Binary binary, Integer integer_at) const {
    Cursor at = *cursor;
    const int first_salient = shape.classes;  // the index of a salient column's first region
    const bool salient_digits = geometry.salient_digits();
    const uint8_t* salient_of = is_salient_column.empty() ? nullptr : is_salient_column.data();
    const std::byte* sign_bits = signs;
    for (int64_t col = first; col < end; ++col) {
      const uint8_t kind = kept[col];
      if (kind == 0) continue;
      if (kind == 2) [[unlikely]] {
        integer_at(col, integer(at.integer++));
        continue;
      }
      const bool salient_column = salient_of != nullptr && salient_of[col] != 0;
      int r = salient_column ? first_salient : 0;
      if (!salient_digits) {
        r += class_of(at.binary);
      } else if (salient_column) {
        r += class_of(at.salient++);
      }
      binary(col, r, get_bit(sign_bits, at.binary++));
    }
    *cursor = at;
  }
  // visit() of a whole row for layers without scattered integers, as fast as it can be: binary(col,
  // kept 0 or 1, t, sign bit) for every column, t being the class within the column's set.
  template <typename Binary>
  void visit_row(int64_t row, RowBuffers* buffers, Binary binary) const {
    kept_columns(row, &buffers->kept);
    const bool few_digits = geometry.salient_digits();
    int64_t entry = row * geometry.row_kept, digit = 0;
    expand_digits(few_digits ? row * salient_columns : entry,
                  few_digits ? salient_columns : geometry.row_kept, &buffers->digits);
    const uint8_t* kept_of = buffers->kept.data();
    const uint8_t* digits = buffers->digits.data();
    const int64_t last = geometry.kept() - 1;
    // Without branches on bits, half of which would be mispredicted.
    for (int64_t col = 0; col < shape.cols; ++col) {
      const int kept = kept_of[col];
      const int has_digit = few_digits ? kept & is_salient_column[col] : kept;
      const int t = digits[digit] & -has_digit;
      digit += has_digit;
      binary(col, kept, t, get_bit(signs, std::min(entry, last)));
      entry += kept;
    }
  }
  // Digits [first, first + count) of the plane `classes` as bytes, and at least one more.
  void expand_digits(int64_t first, int64_t count, std::vector<uint8_t>* out) const {
    constexpr int64_t kRoom = 16;
    if (geometry.class_radix == 1) return out->assign(static_cast<size_t>(count + kRoom), 0);
    out->resize(static_cast<size_t>(count + kRoom));
    uint8_t* to = out->data();
    if (geometry.class_radix == 2) {
      for (int64_t i = 0; i < count; ++i) to[i] = get_bit(classes, first + i);
      return;
    }
    int64_t done = 0;
    for (; done < count && (first + done) % 5 != 0; ++done) {
      to[done] = static_cast<uint8_t>(class_of(first + done));
    }
    for (const std::byte* from = classes + (first + done) / 5; done < count; done += 5) {
      std::memcpy(to + done, kDigits3[static_cast<size_t>(*from++)].data(), 5);
    }
  }
  // [rows + 1]: sums of the counts of the rows before.
  std::vector<int64_t> row_starts(const std::byte* counts) const {
    std::vector<int64_t> starts(static_cast<size_t>(shape.rows + 1), 0);
    for (int64_t row = 0; row < shape.rows; ++row) {
      starts[row + 1] = starts[row] + load_count(counts, row, shape);
    }
    return starts;
  }

  const RegionFormat& shape;
  PlanesGeometry geometry;
  const std::byte *signs, *classes, *salient, *mask, *scales, *offsets, *column_scales;
  const std::byte *integers, *steps, *zeros, *index;
  int index_bits = 0;
  std::vector<uint8_t> is_salient_column;  // [cols]; empty if none is
  int64_t salient_columns = 0;
  std::vector<int64_t> integer_start, index_start;
  float base = 0;
  static constexpr int kMostGroup = 16;
  std::vector<std::array<uint8_t, kMostGroup>> kept_of_rank;  // of N:M groups, by column
};

}  // namespace billm
