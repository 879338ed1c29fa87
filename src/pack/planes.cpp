// The layout "planes" (docs/format.md): signs, classes, salient columns, N:M mask, scales, offsets,
// each one contiguous tensor without padding inside. Geometry and decoding; planes_pack.cpp
// packs, planes_check.cpp checks.
#include "planes.h"

#include "billm/base/parallel.h"
#include "billm/pack/packed_planes.h"

namespace billm {

const Plane* PackedPlanes::find(const std::string& name) const {
  for (const Plane& plane : planes) {
    if (plane.name == name) return &plane;
  }
  return nullptr;
}

int64_t PackedPlanes::bytes() const {
  int64_t total = 0;
  for (const Plane& plane : planes) total += static_cast<int64_t>(plane.bytes.size());
  return total;
}
namespace {

int64_t bytes_for_bits(int64_t bits) { return (bits + 7) / 8; }

}  // namespace

std::vector<PlaneSpec> plane_specs(const RegionFormat& shape, int index_bits,
                                   const PlaneCounts& counts) {
  const PlanesGeometry geometry(shape);
  const int64_t binary = geometry.kept() - counts.integers;
  const int64_t digits = geometry.salient_digits() ? counts.salient_columns * shape.rows : binary;
  std::vector<PlaneSpec> specs;
  const auto add_bytes = [&](const char* name, int64_t bytes) {
    specs.push_back({name, "U8", {bytes}, bytes});
  };
  const auto add_integers = [&](int64_t count) {
    add_bytes("integers", bytes_for_bits(count * shape.integer_bits));
    std::vector<int64_t> steps = {shape.rows};
    if (!shape.scattered) steps.insert(steps.begin(), shape.groups());
    specs.push_back({"steps", "F16", std::move(steps), shape.steps() * 2});
    add_bytes("zeros", bytes_for_bits(shape.steps() * shape.integer_bits));
  };
  if (shape.all_integers()) {
    add_integers(shape.rows * shape.cols);
    return specs;
  }
  add_bytes("signs", bytes_for_bits(binary));
  if (geometry.class_radix == 2) add_bytes("classes", bytes_for_bits(digits));
  if (geometry.class_radix == 3) add_bytes("classes", (digits + 4) / 5);
  if (shape.salient_classes > 0) add_bytes("salient", bytes_for_bits(shape.cols));
  if (geometry.mask_bits() > 0) add_bytes("mask", bytes_for_bits(geometry.mask_bits()));
  const char* scale_dtype = shape.scale_format == ScaleFormat::kLog8  ? "U8"
                            : shape.scale_format == ScaleFormat::kF16 ? "F16"
                                                                      : "F32";
  const int scale_bytes = scale_format_bits(shape.scale_format) / 8;
  const int64_t scales = shape.groups() * shape.regions() * shape.rows;
  specs.push_back(
      {"scales", scale_dtype, {shape.groups(), shape.regions(), shape.rows}, scales * scale_bytes});
  if (shape.scale_format == ScaleFormat::kLog8) specs.push_back({"base", "F32", {1}, 4});
  const char* offset_dtype = shape.scale_format == ScaleFormat::kLog8 ? "I8" : scale_dtype;
  if (shape.offset_kind == OffsetKind::kBlock) {
    specs.push_back({"offsets",
                     offset_dtype,
                     {shape.groups(), shape.rows},
                     shape.groups() * shape.rows * scale_bytes});
  } else if (shape.offset_kind == OffsetKind::kRegion) {
    specs.push_back({"offsets",
                     offset_dtype,
                     {shape.groups(), shape.regions(), shape.rows},
                     scales * scale_bytes});
  }
  if (shape.column_scales) specs.push_back({"column_scales", "F16", {shape.cols}, 2 * shape.cols});
  if (shape.scattered) {
    add_integers(counts.integers);
    const bool short_ones = short_counts(shape);
    const auto add_counts = [&](const char* name) {
      specs.push_back(
          {name, short_ones ? "U16" : "U32", {shape.rows}, shape.rows * (short_ones ? 2 : 4)});
    };
    add_counts("integer_counts");
    if (index_bits > 0) add_counts("index_counts");
    add_bytes("index", bytes_for_bits(index_bits > 0 ? counts.index_entries * index_bits
                                                     : shape.rows * shape.cols));
  }
  return specs;
}

namespace {

// Every weight is an integer.
void decode_integers(const PlanesView& view, int64_t row, float* out) {
  const RegionFormat& shape = view.shape;
  int64_t entry = row * shape.cols;
  for (int64_t group = 0; group < shape.groups(); ++group) {
    const float step = view.step(group * shape.rows + row);
    const int zero = view.zero(group * shape.rows + row);
    const int64_t end = std::min<int64_t>(shape.cols, (group + 1) * shape.block_size);
    for (int64_t col = group * shape.block_size; col < end; ++col) {
      out[col] = static_cast<float>(view.integer(entry++) - zero) * step;
    }
  }
}

}  // namespace

void decode_rows(const PackedPlanes& packed, int64_t first_row, int64_t row_count, float* out) {
  const PlanesView view(packed);
  const RegionFormat& shape = view.shape;
  const int regions = shape.regions();
  const bool offsets = shape.offset_kind != OffsetKind::kNone;
  std::vector<uint8_t> kept;
  std::vector<float> scale(static_cast<size_t>(regions)), offset(static_cast<size_t>(regions));
  std::vector<float> column_scale;
  for (int64_t col = 0; shape.column_scales && col < shape.cols; ++col) {
    column_scale.push_back(view.column_scale(col));
  }
  for (int64_t row = first_row; row < first_row + row_count; ++row, out += shape.cols) {
    if (shape.all_integers()) {
      decode_integers(view, row, out);
      continue;
    }
    const float step = shape.scattered ? view.step(row) : 0.0f;
    const int zero = shape.scattered ? view.zero(row) : 0;
    PlanesView::Cursor cursor = view.start_row(row, &kept);
    std::fill(out, out + shape.cols, 0.0f);
    for (int64_t group = 0; group < shape.groups(); ++group) {
      for (int r = 0; r < regions; ++r) {
        scale[r] = view.scale((group * regions + r) * shape.rows + row);
        offset[r] = view.offset(group, r, row);
      }
      const int64_t first = group * shape.block_size;
      view.visit(
          first, std::min<int64_t>(shape.cols, first + shape.block_size), kept, &cursor,
          [&](int64_t col, int r, bool sign) {
            const float signed_scale = sign ? scale[r] : -scale[r];
            out[col] = offsets ? offset[r] + signed_scale : signed_scale;
          },
          [&](int64_t col, int code) { out[col] = static_cast<float>(code - zero) * step; });
    }
    for (int64_t col = 0; shape.column_scales && col < shape.cols; ++col) {
      if (kept[col] != 0) out[col] *= column_scale[col];
    }
  }
}

void decode_rows(const PackedPlanes& packed, int threads, float* out) {
  constexpr int64_t kRowsAtOnce = 64;
  parallel_parts(packed.shape.rows, kRowsAtOnce, threads, [&](int64_t first, int64_t end) {
    decode_rows(packed, first, end - first, out + first * packed.shape.cols);
  });
}

RegionCodes unpack(const PackedPlanes& packed) {
  const PlanesView view(packed);
  const RegionFormat& shape = view.shape;
  RegionCodes linear = make_region_codes(shape);
  linear.base = view.base;
  for (size_t i = 0; i < linear.scale.size(); ++i) linear.scale[i] = view.scale(i);
  for (int64_t group = 0; group < shape.groups(); ++group) {
    for (int r = 0; r < shape.regions() && !linear.offset.empty(); ++r) {
      for (int64_t row = 0; row < shape.rows; ++row) {
        linear.offset[linear.offset_index(group, r + 1, row)] = view.offset(group, r, row);
      }
    }
  }
  linear.salient = view.is_salient_column;
  for (int64_t col = 0; col < static_cast<int64_t>(linear.column_scale.size()); ++col) {
    linear.column_scale[col] = view.column_scale(col);
  }
  for (int64_t i = 0; i < shape.steps(); ++i) {
    linear.step[i] = view.step(i);
    linear.zero[i] = static_cast<uint8_t>(view.zero(i));
  }
  const auto integer_region = static_cast<uint8_t>(shape.integer_region());
  if (shape.all_integers()) {
    std::fill(linear.region.begin(), linear.region.end(), integer_region);
    for (size_t i = 0; i < linear.code.size(); ++i) {
      linear.code[i] = static_cast<uint8_t>(view.integer(static_cast<int64_t>(i)));
    }
    return linear;
  }
  std::vector<uint8_t> kept;
  for (int64_t row = 0; row < shape.rows; ++row) {
    uint8_t* region = linear.region.data() + row * shape.cols;
    uint8_t* codes = linear.code.data() + row * shape.cols;
    PlanesView::Cursor cursor = view.start_row(row, &kept);
    view.visit(
        0, shape.cols, kept, &cursor,
        [&](int64_t col, int r, bool sign) {
          region[col] = static_cast<uint8_t>(1 + r);
          codes[col] = sign;
        },
        [&](int64_t col, int code) {
          region[col] = integer_region;
          codes[col] = static_cast<uint8_t>(code);
        });
  }
  return linear;
}

}  // namespace billm
