// Checks that stored planes are what their description asks for, before anything decodes them.
#include <cmath>

#include "billm/base/error.h"
#include "layouts.h"
#include "planes.h"

namespace billm {
namespace {

void check_zero_tail(const std::byte* bytes, int64_t bits, const std::string& what) {
  if (bits % 8 != 0 && (static_cast<unsigned>(bytes[bits / 8]) >> (bits % 8)) != 0) {
    throw bad_input(what + ": expected zero padding bits");
  }
}

}  // namespace

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
  const PlanesView view(packed);
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

}  // namespace billm
