// small_products() of tests/format/layer_testing.h.
#include "format/layer_testing.h"
#include "support/random_layer.h"

namespace billm::test {
namespace {

RegionFormat format_of(int64_t rows, int64_t cols, int classes, int salient) {
  RegionFormat format;
  format.rows = rows;
  format.cols = cols;
  format.block_size = 16;
  format.classes = classes;
  format.salient_classes = salient;
  format.scale_format = ScaleFormat::kF16;
  return format;
}

LayerCodes product_of(std::vector<Factor> factors) {
  LayerCodes codes;
  codes.factors = std::move(factors);
  return codes;
}

}  // namespace

std::vector<LayerCodes> small_products() {
  RegionFormat masked = format_of(6, 21, 3, 2);
  masked.nm = {4, 8};
  masked.scale_format = ScaleFormat::kLog8;
  RegionFormat integers = format_of(4, 24, 0, 0);
  integers.integer_bits = 2;
  RegionFormat binary = format_of(9, 8, 1, 0);
  binary.column_scales = true;
  RegionFormat wide = format_of(8, 20, 1, 0);
  wide.block_size = 64;
  wide.column_scales = true;
  return {
      product_of({Rotation{6, 7, true}, random_codes(masked, 1), Rotation{21, 9, false}}),
      product_of({random_codes(integers, 2), Rotation{24, 0xffffffff, false}}),
      product_of({Rotation{4, 1, true}, random_codes(integers, 3)}),
      product_of({random_codes(binary, 4), random_codes(wide, 5)}),
      product_of({Rotation{9, 3, true}, random_codes(binary, 6), random_codes(wide, 7),
                  Rotation{20, 4, false}}),
      product_of({random_codes(binary, 8), Rotation{8, 5, false}, random_codes(wide, 9)}),
      product_of({Rotation{9, 3, true}, random_trellis(9, 21, {4, 2}, 10), Rotation{21, 4, false}}),
      product_of({random_trellis(5, 7, {3}, 11), Rotation{7, 4, false}}),
      product_of({random_codes(binary, 12), random_trellis(8, 10, {1}, 13)}),
  };
}

std::vector<LayerCodes> small_trellises() {
  return {
      random_trellis(9, 21, {4, 2}, 1), random_trellis(1, 1, {1}, 2),
      random_trellis(3, 4, {2, 3, 1, 4}, 3), random_trellis(515, 5, {3}, 4),  // two segments
  };
}

}  // namespace billm::test
