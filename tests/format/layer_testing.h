// Helpers of the format tests: planes as text, damaged copies of a packed layer.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "billm/base/error.h"
#include "billm/pack/packed_layer.h"

namespace billm::test {

// "a5 00 ff", or "(absent)".
inline std::string hex(const PackedPlanes& packed, const std::string& name) {
  const Plane* plane = packed.find(name);
  if (plane == nullptr) return "(absent)";
  std::string text;
  for (const std::byte byte : plane->bytes) {
    constexpr char kDigits[] = "0123456789abcdef";
    const auto value = static_cast<unsigned>(byte);
    text += (text.empty() ? "" : " ") + std::string(1, kDigits[value >> 4]) + kDigits[value & 15];
  }
  return text;
}

// A copy whose planes are its own and may be changed.
inline PackedPlanes copy_of(const PackedPlanes& packed) {
  PackedPlanes copy;
  copy.shape = packed.shape;
  copy.index_bits = packed.index_bits;
  for (const Plane& plane : packed.planes) {
    copy.owned.emplace_back(plane.bytes.begin(), plane.bytes.end());
    copy.planes.push_back({plane.name, plane.dtype, plane.shape, copy.owned.back()});
  }
  return copy;
}

// The one factor of a layer.
inline const PackedPlanes& planes_of(const PackedLayer& layer) {
  return std::get<PackedPlanes>(layer.factors.front());
}
inline std::string describe(const PackedPlanes& packed) {
  return billm::describe(PackedLayer(copy_of(packed)));
}

inline std::vector<std::byte>& bytes_of(PackedPlanes& packed, const std::string& name) {
  for (size_t i = 0; i < packed.planes.size(); ++i) {
    if (packed.planes[i].name == name) return packed.owned[i];
  }
  throw std::runtime_error("no plane " + name);
}

// True if check_packed accepts the layer; false if it throws Error{kBadInput} with one line.
template <typename Packed>
bool accepted(const Packed& packed) {
  try {
    check_packed(packed, "file: module");
    return true;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput) << error.message();
    EXPECT_EQ(error.message().rfind("file: module", 0), 0u) << error.message();
    EXPECT_EQ(error.message().find('\n'), std::string::npos) << error.message();
    return false;
  }
}

inline std::vector<float> decode_all(const PackedPlanes& packed) {
  std::vector<float> weight(static_cast<size_t>(packed.shape.rows * packed.shape.cols));
  decode_rows(packed, 0, packed.shape.rows, weight.data());
  return weight;
}

inline std::vector<float> decode_all(const PackedLayer& packed) {
  std::vector<float> weight(static_cast<size_t>(packed.rows() * packed.cols()));
  decode(packed, 1, weight.data());
  return weight;
}

inline PackedTrellis copy_of(const PackedTrellis& packed) {
  PackedTrellis copy;
  copy.format = packed.format;
  for (const Plane& plane : packed.planes) {
    copy.owned.emplace_back(plane.bytes.begin(), plane.bytes.end());
    copy.planes.push_back({plane.name, plane.dtype, plane.shape, copy.owned.back()});
  }
  return copy;
}
inline Rotation copy_of(const Rotation& rotation) { return rotation; }

inline PackedLayer copy_of(const PackedLayer& packed) {
  PackedLayer copy;
  for (const PackedFactor& factor : packed.factors) {
    std::visit([&](const auto& kind) { copy.factors.emplace_back(copy_of(kind)); }, factor);
  }
  return copy;
}

// The bytes of plane `p` of a factor of a copy.
inline std::vector<std::byte>& bytes_of(PackedFactor& factor, size_t p) {
  auto* trellis = std::get_if<PackedTrellis>(&factor);
  return trellis != nullptr ? trellis->owned[p] : std::get<PackedPlanes>(factor).owned[p];
}

// Products of every sort of factor, small enough to damage every bit of: rotated layers (with
// masks, integers, both sides or one, a trellis), binary factors, and these rotated.
std::vector<LayerCodes> small_products();
// Layers of one factor of another layout than planes.
std::vector<LayerCodes> small_trellises();

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() ||  // memcmp takes no null pointer
                                  std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

}  // namespace billm::test
