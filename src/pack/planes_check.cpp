// Checks that stored planes are what their description asks for, before anything decodes them.
#include <cmath>

#include "billm/base/error.h"
#include "billm/pack/packed_planes.h"
#include "planes.h"

namespace billm {
namespace {

void check_zero_tail(const std::byte* bytes, int64_t bits, const std::string& what) {
  if (bits % 8 != 0 && (static_cast<unsigned>(bytes[bits / 8]) >> (bits % 8)) != 0) {
    throw bad_input(what + ": expected zero padding bits");
  }
}

void check_spec(const PackedPlanes& packed, const PlaneSpec& spec, const std::string& where) {
  const Plane* plane = packed.find(spec.name);
  if (plane == nullptr) throw bad_input(where + ": missing plane " + spec.name);
  if (plane->dtype != spec.dtype || plane->shape != spec.shape ||
      static_cast<int64_t>(plane->bytes.size()) != spec.bytes) {
    throw bad_input(where + "." + spec.name + ": expected " + spec.dtype + " of " +
                    std::to_string(spec.bytes) + " bytes, got " + plane->dtype + " of " +
                    std::to_string(plane->bytes.size()) + " bytes");
  }
}

// The sum of a plane of counts, each at most `most`.
int64_t sum_counts(const PackedPlanes& packed, const char* name, int64_t most,
                   const std::string& where) {
  const std::byte* counts = packed.find(name)->bytes.data();
  int64_t sum = 0;
  for (int64_t row = 0; row < packed.shape.rows; ++row) {
    const int64_t count = load_count(counts, row, packed.shape);
    if (count > most) {
      throw bad_input(where + "." + name + ": row " + std::to_string(row) + ": expected at most " +
                      std::to_string(most) + ", got " + std::to_string(count));
    }
    sum += count;
  }
  return sum;
}

// What the counting planes say, themselves checked.
PlaneCounts count_planes(const PackedPlanes& packed, const std::string& where) {
  const RegionFormat& shape = packed.shape;
  for (const PlaneSpec& spec : plane_specs(shape, packed.index_bits, {})) {
    if (is_counting_plane(spec.name)) check_spec(packed, spec, where);
  }
  PlaneCounts counts;
  for (int64_t col = 0; shape.salient_classes > 0 && col < shape.cols; ++col) {
    counts.salient_columns += get_bit(packed.find("salient")->bytes.data(), col);
  }
  if (shape.scattered) {
    counts.integers = sum_counts(packed, "integer_counts", shape.cols, where);
    // Every entry moves on by at least one column.
    if (packed.index_bits > 0) {
      counts.index_entries = sum_counts(packed, "index_counts", shape.cols, where);
    }
  }
  return counts;
}

// The index stays inside the rows and says as many integers as are counted.
void check_index(const PlanesView& view, const std::string& where) {
  const RegionFormat& shape = view.shape;
  const uint64_t skip = (uint64_t{1} << view.index_bits) - 1;
  for (int64_t row = 0; row < shape.rows; ++row) {
    int64_t found = 0, col = 0;
    bool skipped = false;
    if (view.index_bits == 0) {
      for (; col < shape.cols; ++col) found += get_bit(view.index, row * shape.cols + col);
    } else {
      for (int64_t entry = view.index_start[row]; entry < view.index_start[row + 1]; ++entry) {
        const uint64_t delta = get_bits(view.index, entry * view.index_bits, view.index_bits);
        skipped = delta == skip;
        col += static_cast<int64_t>(delta) + (skipped ? 0 : 1);
        found += !skipped;
      }
    }
    const int64_t counted = view.integer_start[row + 1] - view.integer_start[row];
    if (found != counted || col > shape.cols || skipped) {
      throw bad_input(where + ".index: row " + std::to_string(row) + ": expected " +
                      std::to_string(counted) + " integers inside the row, got " +
                      std::to_string(found));
    }
  }
}

void check_integers(const PlanesView& view, int64_t integers, const PlaneCounts& counts,
                    const std::string& where) {
  const RegionFormat& shape = view.shape;
  check_zero_tail(view.integers, integers * shape.integer_bits, where + ".integers");
  check_zero_tail(view.zeros, shape.steps() * shape.integer_bits, where + ".zeros");
  for (int64_t i = 0; i < shape.steps(); ++i) {
    if (!std::isfinite(view.step(i)) || std::signbit(view.step(i))) {
      throw bad_input(where + ".steps: expected finite numbers >= 0");
    }
  }
  if (!shape.scattered) return;
  check_zero_tail(
      view.index,
      view.index_bits > 0 ? counts.index_entries * view.index_bits : shape.rows * shape.cols,
      where + ".index");
  check_index(view, where);
}

}  // namespace

int64_t scaled_bytes(const PackedPlanes& like, int64_t rows, int64_t cols) {
  const PlaneCounts counts = count_planes(like, "size");
  RegionFormat shape = like.shape;
  shape.rows = rows;
  shape.cols = cols;
  const double wider = static_cast<double>(cols) / static_cast<double>(like.shape.cols);
  const double larger = wider * static_cast<double>(rows) / static_cast<double>(like.shape.rows);
  const auto times = [](int64_t count, double factor) {
    return static_cast<int64_t>(std::llround(static_cast<double>(count) * factor));
  };
  int64_t bytes = 0;
  for (const PlaneSpec& spec :
       plane_specs(shape, like.index_bits,
                   {times(counts.salient_columns, wider), times(counts.integers, larger),
                    times(counts.index_entries, larger)})) {
    bytes += spec.bytes;
  }
  return bytes;
}

void check_packed(const PackedPlanes& packed, const std::string& where) {
  const RegionFormat& shape = packed.shape;
  check_region_format(shape, where);
  const PlaneCounts counts = count_planes(packed, where);
  const std::vector<PlaneSpec> specs = plane_specs(shape, packed.index_bits, counts);
  for (const PlaneSpec& spec : specs) check_spec(packed, spec, where);
  if (packed.planes.size() != specs.size()) {
    throw bad_input(where + ": expected " + std::to_string(specs.size()) + " planes, got " +
                    std::to_string(packed.planes.size()));
  }
  const PlanesView view(packed);
  if (shape.all_integers()) {
    check_integers(view, shape.rows * shape.cols, counts, where);
    return;
  }
  if (shape.scattered) check_integers(view, counts.integers, counts, where);
  const int64_t binary = view.geometry.kept() - counts.integers;
  const int64_t digits =
      view.geometry.salient_digits() ? counts.salient_columns * shape.rows : binary;
  check_zero_tail(view.signs, binary, where + ".signs");
  if (view.geometry.class_radix == 2) check_zero_tail(view.classes, digits, where + ".classes");
  if (view.salient != nullptr) check_zero_tail(view.salient, shape.cols, where + ".salient");
  if (view.geometry.class_radix == 3) {
    for (const std::byte byte : packed.find("classes")->bytes) {
      if (static_cast<int>(byte) > 242) throw bad_input(where + ".classes: byte above 242");
    }
    for (int64_t digit = digits; digit % 5 != 0; ++digit) {
      if (view.class_of(digit) != 0) throw bad_input(where + ".classes: expected zero padding");
    }
  }
  if (!std::isfinite(view.base) || view.base < 0) {
    throw bad_input(where + ".base: expected a finite number >= 0");
  }
  const int64_t scales = shape.groups() * shape.regions() * shape.rows;
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
  for (int64_t col = 0; shape.column_scales && col < shape.cols; ++col) {
    const float scale = view.column_scale(col);
    if (!std::isfinite(scale) || scale <= 0) {
      throw bad_input(where + ".column_scales: expected finite numbers > 0");
    }
  }
  if (shape.scale_format == ScaleFormat::kLog8 && view.offsets != nullptr) {
    for (const std::byte code : packed.find("offsets")->bytes) {
      if (code == std::byte{0x80}) throw bad_input(where + ".offsets: code -128 is invalid");
    }
  }
  if (view.mask != nullptr) {
    const PlanesGeometry& geometry = view.geometry;
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
    for (int64_t row = 0; row < shape.rows; ++row) {
      PlanesView::Cursor cursor = view.start_row(row, &columns);
      view.visit(
          0, shape.cols, columns, &cursor,
          [&](int64_t col, int r, bool) {
            if (r >= shape.regions()) {
              throw bad_input(where + ".classes: invalid class in salient column " +
                              std::to_string(col));
            }
          },
          [](int64_t, int) {});
    }
  }
}

}  // namespace billm
