// Dispatch over the layout table, and the description of a layer in the shard's metadata.
#include "billm/pack/packed_linear.h"

#include <nlohmann/json.hpp>

#include "billm/base/error.h"
#include "billm/checkpoint/json.h"
#include "integer_index.h"
#include "layouts.h"

namespace billm {
namespace {

constexpr Layout kLayouts[] = {
    {"planes", pack_planes, check_planes, decode_planes, unpack_planes, scaled_planes_bytes},
};

// Names of the two kinds of index in the description, and the width of a delta. Stored.
constexpr const char* kBitmap = "bitmap";
constexpr const char* kDeltas = "deltas";

const Layout& layout_row(const std::string& name, const std::string& where) {
  for (const Layout& row : kLayouts) {
    if (name == row.name) return row;
  }
  throw bad_input(where + ": unknown packed layout '" + printable(name) + "'",
                  "the file was written by another version of billm");
}

}  // namespace

std::span<const Layout> layouts() { return kLayouts; }

const Plane* PackedLinear::find(const std::string& name) const {
  for (const Plane& plane : planes) {
    if (plane.name == name) return &plane;
  }
  return nullptr;
}

int64_t PackedLinear::bytes() const {
  int64_t total = 0;
  for (const Plane& plane : planes) total += static_cast<int64_t>(plane.bytes.size());
  return total;
}

double PackedLinear::stored_bits() const {
  return 8.0 * static_cast<double>(bytes()) / static_cast<double>(shape.rows * shape.cols);
}

PackedLinear pack(const RegionCodes& linear, int threads) {
  check_codes(linear, threads);
  return kLayouts[0].pack(linear, threads);  // every kind of region of version 1 fits this layout
}

void check_packed(const PackedLinear& packed, const std::string& where) {
  layout_row(packed.layout, where).check(packed, where);
}

void decode_rows(const PackedLinear& packed, int64_t first_row, int64_t row_count, float* out) {
  layout_row(packed.layout, "decode").decode_rows(packed, first_row, row_count, out);
}

RegionCodes unpack(const PackedLinear& packed) {
  return layout_row(packed.layout, "unpack").unpack(packed);
}

int64_t scaled_bytes(const PackedLinear& like, int64_t rows, int64_t cols) {
  return layout_row(like.layout, "size").scaled_bytes(like, rows, cols);
}

std::string describe(const PackedLinear& packed) {
  const RegionFormat& shape = packed.shape;
  nlohmann::ordered_json description = {{"layout", packed.layout},
                                        {"rows", shape.rows},
                                        {"cols", shape.cols},
                                        {"block_size", shape.block_size},
                                        {"n", shape.nm.n},
                                        {"m", shape.nm.m},
                                        {"classes", shape.classes},
                                        {"salient_classes", shape.salient_classes},
                                        {"scale_format", scale_format_name(shape.scale_format)},
                                        {"offsets", offset_kind_name(shape.offset_kind)}};
  if (shape.column_scales) description["column_scales"] = true;
  if (shape.integer_bits > 0) description["integer_bits"] = shape.integer_bits;
  if (shape.scattered) {
    description["index"] = packed.index_bits == 0 ? kBitmap : kDeltas;
    if (packed.index_bits != 0) description["index_bits"] = packed.index_bits;
  }
  return description.dump();
}

PackedLinear parse_description(const std::string& text, const std::string& where) {
  const nlohmann::json json = parse_json_object(text, where + ": description");
  const auto text_of = [&](const char* key) {
    const auto found = json.find(key);
    if (found == json.end() || !found->is_string()) {
      throw bad_input(where + ": expected a string '" + key + "' in its description");
    }
    return found->get<std::string>();
  };
  const auto number_of = [&](const char* key) {
    const auto found = json.find(key);
    if (found == json.end() || !found->is_number_integer() || found->get<int64_t>() < 0 ||
        found->get<int64_t>() > (int64_t{1} << 30)) {
      throw bad_input(where + ": expected an integer '" + key + "' in its description");
    }
    return found->get<int64_t>();
  };
  PackedLinear packed;
  RegionFormat& shape = packed.shape;
  packed.layout = text_of("layout");
  layout_row(packed.layout, where);
  shape.rows = number_of("rows");
  shape.cols = number_of("cols");
  shape.block_size = static_cast<int>(number_of("block_size"));
  shape.nm = {static_cast<int>(number_of("n")), static_cast<int>(number_of("m"))};
  shape.classes = static_cast<int>(number_of("classes"));
  shape.salient_classes = static_cast<int>(number_of("salient_classes"));
  const auto named = [&](const char* key, auto parse) {
    const std::string name = printable(text_of(key));
    try {
      return parse(name);
    } catch (const Error& error) {
      throw bad_input(where + ": " + error.message());
    }
  };
  shape.scale_format = named("scale_format", scale_format_from_name);
  shape.offset_kind = named("offsets", offset_kind_from_name);
  // Keys that older files do not have.
  if (const auto found = json.find("column_scales"); found != json.end()) {
    if (!found->is_boolean()) {
      throw bad_input(where + ": expected true or false for 'column_scales' in its description");
    }
    shape.column_scales = found->get<bool>();
  }
  if (json.contains("integer_bits")) {
    shape.integer_bits = static_cast<int>(number_of("integer_bits"));
  }
  if (json.contains("index")) {
    shape.scattered = true;
    const std::string index = text_of("index");
    if (index != kBitmap && index != kDeltas) {
      throw bad_input(where + ": unknown index '" + printable(index) +
                      "': expected bitmap or deltas");
    }
    if (index == kDeltas) packed.index_bits = static_cast<int>(number_of("index_bits"));
    if (index == kDeltas && (packed.index_bits < kMinDelta || packed.index_bits > kMaxDelta)) {
      throw bad_input(where + ": expected index_bits in 2..8, got " +
                      std::to_string(packed.index_bits));
    }
  }
  if (json.contains("index_bits") && packed.index_bits == 0) {
    throw bad_input(where + ": index_bits without an index of deltas");
  }
  check_region_format(shape, where);
  return packed;
}

}  // namespace billm
