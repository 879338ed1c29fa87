// Products of packed factors: see include/billm/pack/packed_layer.h.
#include "billm/pack/packed_layer.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "billm/base/error.h"
#include "billm/base/json_text.h"
#include "billm/checkpoint/json.h"
#include "description.h"
#include "layouts.h"

namespace billm {
namespace {

constexpr const char* kProduct = "product";

FactorSize shape_of(const PackedPlanes& planes) {
  return {planes.shape.rows, planes.shape.cols, false};
}
FactorSize shape_of(const Rotation& rotation) { return {rotation.size, rotation.size, true}; }
FactorSize shape_of(const PackedTrellis& packed) {
  return {packed.format.rows, packed.format.cols, false};
}

template <typename Packed>
std::vector<Plane>* planes_of(Packed& packed) {
  return &packed.planes;
}
std::vector<Plane>* planes_of(Rotation&) { return nullptr; }

// "factor 1" of a product; the layer itself is its one factor.
std::string where_factor(const std::string& where, const PackedLayer& packed, size_t i) {
  return packed.product() ? where + ": factor " + std::to_string(i) : where;
}

void check_factors(const PackedLayer& packed, const std::string& where) {
  std::vector<FactorSize> sizes;
  for (const PackedFactor& factor : packed.factors) sizes.push_back(size_of(factor));
  const std::string problem = factors_problem(sizes);
  if (!problem.empty()) throw bad_input(where + ": " + problem);
}

PackedFactor parse_factor(const nlohmann::json& json, const std::string& where) {
  if (!json.is_object()) throw bad_input(where + ": expected an object in its description");
  const std::string name = DescriptionReader(json, where).text("layout");
  for (const Layout& row : layouts()) {
    if (name == row.name) return row.parse(json, where);
  }
  throw bad_input(where + ": unknown packed layout '" + printable(name) + "'",
                  "the file was written by another version of billm");
}

nlohmann::ordered_json describe_factor(const PackedFactor& factor) {
  const Layout& row = layout_of(factor);
  nlohmann::ordered_json json = {{"layout", row.name}};
  row.describe(factor, &json);
  return json;
}

}  // namespace

std::span<const Layout> layouts() {
  static const Layout table[] = {kPlanesLayout, kRotationLayout, kTrellisLayout};
  static_assert(std::size(table) == kFactorKinds);
  return table;
}

FactorSize size_of(const PackedFactor& factor) {
  return std::visit([](const auto& kind) { return shape_of(kind); }, factor);
}

std::vector<Plane>* stored_planes(PackedFactor& factor) {
  return std::visit([](auto& kind) { return planes_of(kind); }, factor);
}
const std::vector<Plane>* stored_planes(const PackedFactor& factor) {
  return stored_planes(const_cast<PackedFactor&>(factor));
}

PackedLayer without_planes(const PackedLayer& packed) {
  PackedLayer result;
  for (const PackedFactor& factor : packed.factors) {
    result.factors.push_back(layout_of(factor).without_planes(factor));
  }
  return result;
}

int format_version(const PackedLayer& packed) {
  int version = packed.product() ? 2 : 1;
  for (const PackedFactor& factor : packed.factors) {
    version = std::max(version, layout_of(factor).first_version);
  }
  return version;
}

int64_t PackedLayer::rows() const { return size_of(factors.front()).rows; }
int64_t PackedLayer::cols() const { return size_of(factors.back()).cols; }
const char* PackedLayer::layout() const {
  return product() ? kProduct : layout_of(factors.front()).name;
}

int64_t PackedLayer::bytes() const {
  int64_t total = 0;
  for_each_plane(*this, [&](const std::string&, const Plane& plane) {
    total += static_cast<int64_t>(plane.bytes.size());
  });
  return total;
}

double PackedLayer::stored_bits() const {
  return 8.0 * static_cast<double>(bytes()) / static_cast<double>(rows() * cols());
}

void for_each_plane(const PackedLayer& packed,
                    const std::function<void(const std::string& name, const Plane& plane)>& body) {
  for (size_t i = 0; i < packed.factors.size(); ++i) {
    const std::string prefix = packed.product() ? std::to_string(i) + "." : "";
    const std::vector<Plane>* planes = stored_planes(packed.factors[i]);
    if (planes == nullptr) continue;
    for (const Plane& plane : *planes) body(prefix + plane.name, plane);
  }
}

PackedLayer pack(const LayerCodes& codes, int threads) {
  PackedLayer packed;
  for (const Factor& factor : codes.factors) {
    packed.factors.push_back(layouts()[factor.index()].pack(factor, threads));
  }
  std::vector<FactorSize> sizes;
  for (const PackedFactor& factor : packed.factors) sizes.push_back(size_of(factor));
  const std::string problem = factors_problem(sizes);
  if (!problem.empty()) {
    throw Error(ErrorCode::kFailure, "quantized layer is inconsistent: " + problem);
  }
  return packed;
}

void check_packed(const PackedLayer& packed, const std::string& where) {
  check_factors(packed, where);
  for (size_t i = 0; i < packed.factors.size(); ++i) {
    const PackedFactor& factor = packed.factors[i];
    layout_of(factor).check(factor, where_factor(where, packed, i));
  }
}

void decode(const PackedLayer& packed, int threads, float* out) {
  const auto* planes = std::get_if<PackedPlanes>(&packed.factors.front());
  if (!packed.product() && planes != nullptr) {  // straight to its place: no second copy
    decode_rows(*planes, threads, out);
    return;
  }
  std::vector<DecodedFactor> factors;
  for (const PackedFactor& factor : packed.factors) {
    factors.push_back(layout_of(factor).decode(factor, threads));
  }
  const std::vector<float> weight = multiply_factors(std::move(factors), threads);
  std::copy(weight.begin(), weight.end(), out);
}

LayerCodes unpack(const PackedLayer& packed) {
  LayerCodes codes;
  for (const PackedFactor& factor : packed.factors) {
    codes.factors.push_back(layout_of(factor).unpack(factor));
  }
  return codes;
}

int64_t scaled_bytes(const PackedLayer& like, int64_t rows, int64_t cols) {
  const double wider = static_cast<double>(cols) / static_cast<double>(like.cols());
  const double taller = static_cast<double>(rows) / static_cast<double>(like.rows());
  // The rank of binary factors at equal bits: r (n + m) ~ n m.
  const double inner = std::sqrt(wider * taller);
  int64_t bytes = 0;
  for (size_t i = 0; i < like.factors.size(); ++i) {
    const FactorSize size = size_of(like.factors[i]);
    const auto times = [](int64_t count, double factor) {
      return std::max<int64_t>(1, std::llround(static_cast<double>(count) * factor));
    };
    const bool outermost = size.rows == like.rows(), innermost = size.cols == like.cols();
    bytes += layout_of(like.factors[i])
                 .scaled_bytes(like.factors[i], outermost ? rows : times(size.rows, inner),
                               innermost ? cols : times(size.cols, inner));
  }
  return bytes;
}

std::string unsupported(const PackedLayer& packed) {
  for (const PackedFactor& factor : packed.factors) {
    std::string why = layout_of(factor).unsupported(factor);
    if (!why.empty()) return why;
  }
  return "";
}

std::string describe(const PackedLayer& packed) {
  if (!packed.product()) return dump_json(describe_factor(packed.factors.front()));
  nlohmann::ordered_json json = {
      {"layout", kProduct}, {"rows", packed.rows()}, {"cols", packed.cols()}};
  for (const PackedFactor& factor : packed.factors) {
    json["factors"].push_back(describe_factor(factor));
  }
  return dump_json(json);
}

PackedLayer parse_description(const std::string& text, const std::string& where) {
  const nlohmann::json json = parse_json_object(text, where + ": description");
  PackedLayer packed;
  DescriptionReader reader(json, where);
  if (reader.text("layout") != kProduct) {
    packed.factors.push_back(parse_factor(json, where));
    check_factors(packed, where);
    return packed;
  }
  const int64_t rows = reader.number("rows"), cols = reader.number("cols");
  const nlohmann::json& factors = reader.array("factors");
  reader.finish();
  if (factors.size() < 2 || factors.size() > kMostFactors) {
    throw bad_input(where + ": expected 2.." + std::to_string(kMostFactors) +
                    " factors in its description, got " + std::to_string(factors.size()));
  }
  for (size_t i = 0; i < factors.size(); ++i) {
    packed.factors.push_back(parse_factor(factors[i], where + ": factor " + std::to_string(i)));
  }
  check_factors(packed, where);
  if (packed.rows() != rows || packed.cols() != cols) {
    throw bad_input(where + ": expected factors of a product [" + std::to_string(rows) + ", " +
                    std::to_string(cols) + "], got [" + std::to_string(packed.rows()) + ", " +
                    std::to_string(packed.cols()) + "]");
  }
  return packed;
}

}  // namespace billm
