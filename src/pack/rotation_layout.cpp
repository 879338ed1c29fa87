// The row of rotations in the table of layouts: a description without planes (docs/format.md,
// "Rotation").
#include "description.h"
#include "layouts.h"

namespace billm {
namespace {

const Rotation& rotation_of(const PackedFactor& factor) { return std::get<Rotation>(factor); }

PackedFactor parse_rotation(const nlohmann::json& json, const std::string& where) {
  DescriptionReader reader(json, where);
  reader.text("layout");
  Rotation rotation;
  rotation.size = reader.number("size");
  rotation.seed = static_cast<uint32_t>(reader.number("seed", 0xffffffff));
  rotation.transposed = reader.flag("transposed");
  reader.finish();
  check_rotation(rotation, where);
  return rotation;
}

}  // namespace

const Layout kRotationLayout = {
    .name = "rotation",
    .pack = [](const Factor& factor, int) -> PackedFactor { return std::get<Rotation>(factor); },
    .describe =
        [](const PackedFactor& factor, nlohmann::ordered_json* json) {
          const Rotation& rotation = rotation_of(factor);
          (*json)["size"] = rotation.size;
          (*json)["seed"] = rotation.seed;
          (*json)["transposed"] = rotation.transposed;
        },
    .parse = parse_rotation,
    .without_planes = [](const PackedFactor& factor) -> PackedFactor {
      return rotation_of(factor);
    },
    .check = [](const PackedFactor& factor,
                const std::string& where) { check_rotation(rotation_of(factor), where); },
    .decode =
        [](const PackedFactor& factor, int) {
          const Rotation& rotation = rotation_of(factor);
          return DecodedFactor{rotation.size, rotation.size, {}, rotation};
        },
    .unpack = [](const PackedFactor& factor) -> Factor { return rotation_of(factor); },
    .scaled_bytes = [](const PackedFactor&, int64_t, int64_t) -> int64_t { return 0; },
    .unsupported = [](const PackedFactor&) { return std::string(); },
};

}  // namespace billm
