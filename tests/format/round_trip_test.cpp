// Properties of packing over a sweep of shapes: the codes come back, and the decoded weights are
// those of dequantize() to the bit.
#include <gtest/gtest.h>

#include <algorithm>

#include "billm/base/error.h"
#include "format/layer_testing.h"
#include "src/pack/layouts.h"
#include "support/random_layer.h"

namespace billm::test {
namespace {

std::vector<RegionFormat> all_shapes(int every) {
  std::vector<RegionFormat> shapes = shape_sweep(every);
  const std::vector<RegionFormat> kinds = shape_sweep_of_kinds((every + 4) / 5);
  shapes.insert(shapes.end(), kinds.begin(), kinds.end());
  return shapes;
}

void expect_same_planes(const PackedPlanes& packed, const PackedPlanes& expected) {
  ASSERT_EQ(packed.index_bits, expected.index_bits);
  ASSERT_EQ(packed.planes.size(), expected.planes.size());
  for (size_t i = 0; i < packed.planes.size(); ++i) {
    ASSERT_EQ(packed.planes[i].name, expected.planes[i].name);
    ASSERT_TRUE(std::ranges::equal(packed.planes[i].bytes, expected.planes[i].bytes))
        << packed.planes[i].name;
  }
}

TEST(RoundTrip, CodesAndWeights) {
  uint32_t seed = 0;
  for (const RegionFormat& shape : all_shapes(1)) {
    SCOPED_TRACE(text_of(shape));
    const RegionCodes linear = random_codes(shape, ++seed);
    ASSERT_NO_THROW(check_codes(linear));
    const PackedPlanes packed = pack(linear);
    ASSERT_TRUE(accepted(packed));
    const RegionCodes back = unpack(packed);
    ASSERT_TRUE(back.shape == shape);
    ASSERT_EQ(back.region, linear.region);
    ASSERT_EQ(back.code, linear.code);
    ASSERT_EQ(back.salient, linear.salient);
    ASSERT_EQ(back.base, linear.base);
    ASSERT_TRUE(same_bits(back.scale, linear.scale));
    ASSERT_EQ(back.offset, linear.offset);
    ASSERT_EQ(back.column_scale, linear.column_scale);
    ASSERT_EQ(back.step, linear.step);
    ASSERT_EQ(back.zero, linear.zero);
    ASSERT_TRUE(same_bits(decode_all(packed), dequantize(linear)));
  }
}

TEST(RoundTrip, PartsOfRowsAndCopies) {
  uint32_t seed = 1000;
  for (const RegionFormat& shape : all_shapes(17)) {
    SCOPED_TRACE(text_of(shape));
    const PackedPlanes packed = pack(random_codes(shape, ++seed));
    const std::vector<float> whole = decode_all(packed);
    for (int64_t row = 0; row < shape.rows; row += 3) {
      const int64_t count = std::min<int64_t>(3, shape.rows - row);
      std::vector<float> part(static_cast<size_t>(count * shape.cols));
      decode_rows(packed, row, count, part.data());
      const auto first = whole.begin() + row * shape.cols;
      ASSERT_TRUE(same_bits(part, {first, first + count * shape.cols}));
    }
    expect_same_planes(pack(unpack(packed)), packed);
  }
}

TEST(RoundTrip, TheSameBytesForAnyNumberOfThreads) {
  uint32_t seed = 2000;
  for (RegionFormat shape : all_shapes(3)) {
    if (shape.rows < 64) shape.rows += 130;  // several threads' shares, which meet within bytes
    SCOPED_TRACE(text_of(shape));
    const RegionCodes linear = random_codes(shape, ++seed);
    const PackedPlanes packed = pack(linear, 1);
    for (const int threads : {2, 3, 7}) expect_same_planes(pack(linear, threads), packed);
    ASSERT_NO_THROW(check_codes(linear, 3));
    ASSERT_EQ(region_shares(linear, 3), region_shares(linear, 1));
  }
}

// The first wrong row is named, whichever thread finds one first.
TEST(RoundTrip, WhatIsWrongIsNamedForAnyNumberOfThreads) {
  RegionFormat shape;
  shape.rows = 300;
  shape.cols = 40;
  shape.nm = {4, 8};
  RegionCodes linear = random_codes(shape, 1);
  for (const int64_t row : {290, 150, 70}) linear.region[row * shape.cols + 9] = 100;
  linear.code[5 * shape.cols + 17] = 2;
  for (const int threads : {1, 2, 5}) {
    try {
      pack(linear, threads);
      FAIL() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.message(), "quantized layer is inconsistent: code out of range");
    }
  }
  linear.code[5 * shape.cols + 17] = 0;
  for (const int threads : {1, 2, 5}) {
    try {
      pack(linear, threads);
      FAIL() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.message(), "quantized layer is inconsistent: region 100 in column 9");
    }
  }
}

TEST(RoundTrip, EveryKindOfFactorHasItsLayout) {
  ASSERT_EQ(layouts().size(), factor_kind_names().size());
  for (size_t kind = 0; kind < layouts().size(); ++kind) {
    const Layout& layout = layouts()[kind];
    SCOPED_TRACE(factor_kind_names()[kind]);
    EXPECT_STREQ(layout.name, factor_kind_names()[kind]);
    EXPECT_NE(layout.pack, nullptr);
    EXPECT_NE(layout.describe, nullptr);
    EXPECT_NE(layout.parse, nullptr);
    EXPECT_NE(layout.check, nullptr);
    EXPECT_NE(layout.decode, nullptr);
    EXPECT_NE(layout.unpack, nullptr);
    EXPECT_NE(layout.scaled_bytes, nullptr);
    EXPECT_NE(layout.unsupported, nullptr);
  }
}

}  // namespace
}  // namespace billm::test
