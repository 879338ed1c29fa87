// PackedLayer: the bytes of one quantized linear layer, a product of packed factors
// (docs/format.md). A layer of one factor is what format version 1 knows.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <variant>
#include <vector>

#include "billm/codes/layer_codes.h"
#include "billm/pack/packed_planes.h"
#include "billm/pack/packed_trellis.h"

namespace billm {

// The kinds in the order of Factor; a rotation is its description and has no bytes.
using PackedFactor = std::variant<PackedPlanes, Rotation, PackedTrellis>;
static_assert(std::variant_size_v<PackedFactor> == kFactorKinds);

// The planes of a factor; null for a rotation, which has none.
std::vector<Plane>* stored_planes(PackedFactor& factor);
const std::vector<Plane>* stored_planes(const PackedFactor& factor);

struct PackedLayer {
  PackedLayer() = default;
  PackedLayer(PackedPlanes planes) { factors.emplace_back(std::move(planes)); }     // NOLINT
  PackedLayer(PackedTrellis trellis) { factors.emplace_back(std::move(trellis)); }  // NOLINT

  std::vector<PackedFactor> factors;  // outermost first

  int64_t rows() const;
  int64_t cols() const;
  bool product() const { return factors.size() > 1; }
  // "planes", "trellis", or "product"; of the one factor, or of several.
  const char* layout() const;
  int64_t bytes() const;       // of all planes
  double stored_bits() const;  // 8 * bytes / (rows * cols)
};

// The layer without its planes, as its description has it.
PackedLayer without_planes(const PackedLayer& packed);
// The lowest version of the format that has what the layer is made of.
int format_version(const PackedLayer& packed);

// Calls body(name, plane) for every plane, named as the file does below the module: "signs", or
// "0.signs" in the first factor of a product.
void for_each_plane(const PackedLayer& packed,
                    const std::function<void(const std::string& name, const Plane& plane)>& body);

// Checks the codes, then packs each factor: the same bytes everywhere, for any number of threads.
PackedLayer pack(const LayerCodes& codes, int threads = 1);

// check_packed() of each factor, and that the factors fit each other. Throws Error{kBadInput}
// starting with `where`.
void check_packed(const PackedLayer& packed, const std::string& where);

// W [rows, cols] as fp32 at `out`, the same for any number of threads. `packed` must have passed
// check_packed (or come from pack()).
void decode(const PackedLayer& packed, int threads, float* out);

// All the codes back.
LayerCodes unpack(const PackedLayer& packed);

// Bytes of a layer [rows, cols] that is coded as `like` is: for estimates. The inner sizes of a
// product scale with the geometric mean of both sides.
int64_t scaled_bytes(const PackedLayer& like, int64_t rows, int64_t cols);

// What of a layer keeps it from being run from its planes on the CPU; empty if nothing does.
std::string unsupported(const PackedLayer& packed);

// The JSON text that stands in the shard's metadata under the module's name, and its parser, which
// gives a layer without planes and refuses keys that it does not know. Throws Error{kBadInput}
// starting with `where`.
std::string describe(const PackedLayer& packed);
PackedLayer parse_description(const std::string& text, const std::string& where);

}  // namespace billm
