// The layout "planes" (docs/format.md): signs, classes, salient columns, N:M mask, scales, offsets,
// each one contiguous tensor without padding inside.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "billm/base/error.h"
#include "bits.h"
#include "layouts.h"

namespace billm {
namespace {

constexpr int kPow3[5] = {1, 3, 9, 27, 81};

// The numbers that follow from a layer's shape.
struct Geometry {
  explicit Geometry(const LinearShape& shape) : shape_(shape) {
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

int64_t bytes_for_bits(int64_t bits) { return (bits + 7) / 8; }

// The planes that a layer of this shape has, in file order.
std::vector<PlaneSpec> plane_specs(const LinearShape& shape) {
  const Geometry geometry(shape);
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

template <typename T>
T load(const std::byte* bytes, int64_t index) {
  T value;
  std::memcpy(&value, bytes + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

float load_float(const std::byte* bytes, int64_t index, ScaleFormat format) {
  return format == ScaleFormat::kF16 ? half_to_float(load<uint16_t>(bytes, index))
                                     : load<float>(bytes, index);
}

// Planes of a layer by role, for decoding.
struct View {
  explicit View(const PackedLinear& packed) : shape(packed.shape), geometry(shape) {
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
  Geometry geometry;
  const std::byte *signs, *classes, *salient, *mask, *scales, *offsets;
  float base = 0;
  std::vector<uint16_t> mask_of_rank;  // bit c: column c of the group is kept
};

void check_zero_tail(const std::byte* bytes, int64_t bits, const std::string& what) {
  if (bits % 8 != 0 && (static_cast<unsigned>(bytes[bits / 8]) >> (bits % 8)) != 0) {
    throw bad_input(what + ": expected zero padding bits");
  }
}

// Writes the mask plane of a layer.
std::vector<std::byte> pack_mask(const QuantizedLinear& linear, const Geometry& geometry) {
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

PackedLinear pack_planes(const QuantizedLinear& linear) {
  const LinearShape& shape = linear.shape;
  const Geometry geometry(shape);
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

void check_planes(const PackedLinear& packed, const std::string& where) {
  const LinearShape& shape = packed.shape;
  check_linear_shape(shape, where);
  const std::vector<PlaneSpec> specs = plane_specs(shape);
  for (const PlaneSpec& spec : specs) {
    const Plane* plane = packed.find(spec.name);
    if (plane == nullptr) throw bad_input(where + ": missing plane " + spec.name);
    if (plane->dtype != spec.dtype || plane->shape != spec.shape ||
        static_cast<int64_t>(plane->bytes.size()) != spec.bytes) {
      throw bad_input(where + "." + spec.name + ": expected " + spec.dtype + " of " +
                      std::to_string(spec.bytes) + " bytes, got " + plane->dtype + " of " +
                      std::to_string(plane->bytes.size()) + " bytes");
    }
  }
  if (packed.planes.size() != specs.size()) {
    throw bad_input(where + ": expected " + std::to_string(specs.size()) + " planes, got " +
                    std::to_string(packed.planes.size()));
  }
  const View view(packed);
  const int64_t kept = view.geometry.kept();
  check_zero_tail(view.signs, kept, where + ".signs");
  if (shape.classes == 2) check_zero_tail(view.classes, kept, where + ".classes");
  if (view.salient != nullptr) check_zero_tail(view.salient, shape.cols, where + ".salient");
  if (shape.classes == 3) {
    for (const std::byte byte : packed.find("classes")->bytes) {
      if (static_cast<int>(byte) > 242) throw bad_input(where + ".classes: byte above 242");
    }
    for (int64_t entry = kept; entry % 5 != 0; ++entry) {
      if (view.class_of(entry) != 0) throw bad_input(where + ".classes: expected zero padding");
    }
  }
  if (!std::isfinite(view.base) || view.base < 0) {
    throw bad_input(where + ".base: expected a finite number >= 0");
  }
  const int64_t scales = shape.blocks() * shape.regions() * shape.rows;
  if (shape.scale_format != ScaleFormat::kLog8) {
    for (int64_t i = 0; i < scales; ++i) {
      if (!std::isfinite(view.scale(i))) throw bad_input(where + ".scales: a scale is not finite");
    }
    const Plane* offsets = packed.find("offsets");
    const int64_t count = offsets == nullptr ? 0
                                             : static_cast<int64_t>(offsets->bytes.size()) * 8 /
                                                   scale_format_bits(shape.scale_format);
    for (int64_t i = 0; i < count; ++i) {
      if (!std::isfinite(load_float(view.offsets, i, shape.scale_format))) {
        throw bad_input(where + ".offsets: an offset is not finite");
      }
    }
  }
  if (shape.scale_format == ScaleFormat::kLog8 && view.offsets != nullptr) {
    for (const std::byte code : packed.find("offsets")->bytes) {
      if (code == std::byte{0x80}) throw bad_input(where + ".offsets: code -128 is invalid");
    }
  }
  if (view.mask != nullptr) {
    const Geometry& geometry = view.geometry;
    check_zero_tail(view.mask, geometry.mask_bits(), where + ".mask");
    const int64_t ranks = shape.rows * geometry.full_groups;
    for (int64_t w = 0; w < geometry.full_words; ++w) {
      unsigned __int128 states = 1;  // the last word's missing ranks are 0
      for (int64_t i = 0;
           i < std::min<int64_t>(geometry.words.ranks, ranks - w * geometry.words.ranks); ++i) {
        states *= geometry.words.combinations;
      }
      if (get_bits(view.mask, w * geometry.words.bits, geometry.words.bits) >= states) {
        throw bad_input(where + ".mask: word " + std::to_string(w) + " is no valid set of ranks");
      }
    }
    const uint32_t tails =
        geometry.tail_columns > 0 ? binomial(geometry.tail_columns, geometry.tail_kept) : 1;
    for (int64_t row = 0; geometry.tail_bits > 0 && row < shape.rows; ++row) {
      if (view.tail_rank(row) >= tails) {
        throw bad_input(where + ".mask: tail of row " + std::to_string(row) + " is no valid rank");
      }
    }
  }
  if (shape.classes > shape.salient_classes && shape.salient_classes > 0) {
    std::vector<uint8_t> columns;
    int64_t entry = 0;
    for (int64_t row = 0; row < shape.rows; ++row) {
      view.kept_columns(row, &columns);
      for (int64_t col = 0; col < shape.cols; ++col) {
        if (columns[col] == 0) continue;
        if (view.is_salient(col) && view.class_of(entry) >= shape.salient_classes) {
          throw bad_input(where + ".classes: invalid class in salient column " +
                          std::to_string(col));
        }
        ++entry;
      }
    }
  }
}

void decode_planes(const PackedLinear& packed, int64_t first_row, int64_t row_count, float* out) {
  const View view(packed);
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
  const View view(packed);
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
