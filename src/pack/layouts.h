// The table of layouts: all that packing knows of a kind of factor, one file and one row each, in
// the order of Factor.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "billm/pack/packed_layer.h"

namespace billm {

struct Layout {
  const char* name;  // stored in the file: do not rename
  PackedFactor (*pack)(const Factor& factor, int threads);
  // Adds the keys of the description besides "layout"; parse gives a factor without planes and
  // throws Error{kBadInput} starting with `where`, for unknown keys too.
  void (*describe)(const PackedFactor& factor, nlohmann::ordered_json* json);
  PackedFactor (*parse)(const nlohmann::json& json, const std::string& where);
  // What the description says of it: the factor without its planes.
  PackedFactor (*without_planes)(const PackedFactor& factor);
  void (*check)(const PackedFactor& factor, const std::string& where);
  DecodedFactor (*decode)(const PackedFactor& factor, int threads);
  Factor (*unpack)(const PackedFactor& factor);
  int64_t (*scaled_bytes)(const PackedFactor& like, int64_t rows, int64_t cols);
  std::string (*unsupported)(const PackedFactor& factor);  // as of a layer
  int first_version = 1;  // of the format, in which the layout may stand
};

std::span<const Layout> layouts();
inline const Layout& layout_of(const PackedFactor& factor) { return layouts()[factor.index()]; }

// The rows: planes_layout.cpp, rotation_layout.cpp, trellis_layout.cpp.
extern const Layout kPlanesLayout;
extern const Layout kRotationLayout;
extern const Layout kTrellisLayout;

// Shape of a packed factor.
FactorSize size_of(const PackedFactor& factor);

}  // namespace billm
