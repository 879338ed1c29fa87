// The row of factors of region codes in the table of layouts: "planes" (docs/format.md).
#include "billm/pack/plane_tiles.h"
#include "description.h"
#include "integer_index.h"
#include "layouts.h"

namespace billm {
namespace {

// Names of the two kinds of index in the description. Stored.
constexpr const char* kBitmap = "bitmap";
constexpr const char* kDeltas = "deltas";

const PackedPlanes& planes_of(const PackedFactor& factor) { return std::get<PackedPlanes>(factor); }

void describe_planes(const PackedFactor& factor, nlohmann::ordered_json* json) {
  const PackedPlanes& packed = planes_of(factor);
  const RegionFormat& shape = packed.shape;
  nlohmann::ordered_json& description = *json;
  description["rows"] = shape.rows;
  description["cols"] = shape.cols;
  description["block_size"] = shape.block_size;
  description["n"] = shape.nm.n;
  description["m"] = shape.nm.m;
  description["classes"] = shape.classes;
  description["salient_classes"] = shape.salient_classes;
  description["scale_format"] = scale_format_name(shape.scale_format);
  description["offsets"] = offset_kind_name(shape.offset_kind);
  if (shape.column_scales) description["column_scales"] = true;
  if (shape.integer_bits > 0) description["integer_bits"] = shape.integer_bits;
  if (shape.scattered) {
    description["index"] = packed.index_bits == 0 ? kBitmap : kDeltas;
    if (packed.index_bits != 0) description["index_bits"] = packed.index_bits;
  }
}

PackedFactor parse_planes(const nlohmann::json& json, const std::string& where) {
  DescriptionReader reader(json, where);
  PackedPlanes packed;
  RegionFormat& shape = packed.shape;
  reader.text("layout");
  shape.rows = reader.number("rows");
  shape.cols = reader.number("cols");
  shape.block_size = static_cast<int>(reader.number("block_size"));
  shape.nm = {static_cast<int>(reader.number("n")), static_cast<int>(reader.number("m"))};
  shape.classes = static_cast<int>(reader.number("classes"));
  shape.salient_classes = static_cast<int>(reader.number("salient_classes"));
  shape.scale_format = reader.named("scale_format", scale_format_from_name);
  shape.offset_kind = reader.named("offsets", offset_kind_from_name);
  // Keys that older files do not have.
  if (reader.has("column_scales")) shape.column_scales = reader.flag("column_scales");
  if (reader.has("integer_bits")) {
    shape.integer_bits = static_cast<int>(reader.number("integer_bits"));
  }
  if (reader.has("index")) {
    shape.scattered = true;
    const std::string index = reader.text("index");
    if (index != kBitmap && index != kDeltas) {
      throw bad_input(where + ": unknown index '" + printable(index) +
                      "': expected bitmap or deltas");
    }
    if (index == kDeltas) packed.index_bits = static_cast<int>(reader.number("index_bits"));
    if (index == kDeltas && (packed.index_bits < kMinDelta || packed.index_bits > kMaxDelta)) {
      throw bad_input(where + ": expected index_bits in 2..8, got " +
                      std::to_string(packed.index_bits));
    }
  }
  if (reader.has("index_bits") && packed.index_bits == 0) {
    throw bad_input(where + ": index_bits without an index of deltas");
  }
  reader.finish();
  check_region_format(shape, where);
  return packed;
}

DecodedFactor decode_planes(const PackedFactor& factor, int threads) {
  const PackedPlanes& packed = planes_of(factor);
  const int64_t rows = packed.shape.rows, cols = packed.shape.cols;
  DecodedFactor decoded = {rows, cols, std::vector<float>(static_cast<size_t>(rows * cols)), {}};
  decode_rows(packed, threads, decoded.matrix.data());
  return decoded;
}

}  // namespace

const Layout kPlanesLayout = {
    .name = "planes",
    .pack = [](const Factor& factor, int threads) -> PackedFactor {
      return pack(std::get<RegionCodes>(factor), threads);
    },
    .describe = describe_planes,
    .parse = parse_planes,
    .without_planes = [](const PackedFactor& factor) -> PackedFactor {
      PackedPlanes packed;
      packed.shape = planes_of(factor).shape;
      packed.index_bits = planes_of(factor).index_bits;
      return packed;
    },
    .check = [](const PackedFactor& factor,
                const std::string& where) { check_packed(planes_of(factor), where); },
    .decode = decode_planes,
    .unpack = [](const PackedFactor& factor) -> Factor { return unpack(planes_of(factor)); },
    .scaled_bytes = [](const PackedFactor& like, int64_t rows,
                       int64_t cols) { return scaled_bytes(planes_of(like), rows, cols); },
    .unsupported =
        [](const PackedFactor& factor) { return PlaneTiles::unsupported(planes_of(factor).shape); },
};

}  // namespace billm
