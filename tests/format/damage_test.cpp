// Damaged planes: what the format forbids is refused, and no damage makes the decoder read or write
// outside of its memory (the asan build looks).
#include <gtest/gtest.h>

#include "format/layer_testing.h"
#include "src/pack/integer_index.h"
#include "support/random_layer.h"

namespace billm::test {
namespace {

RegionFormat small(NmPattern nm, int classes, int salient, ScaleFormat format, OffsetKind offsets) {
  RegionFormat shape;
  shape.rows = 3;
  shape.cols = 21;
  shape.block_size = 16;
  shape.nm = nm;
  shape.classes = classes;
  shape.salient_classes = salient;
  shape.scale_format = format;
  shape.offset_kind = offsets;
  return shape;
}

const RegionFormat kShapes[] = {
    small({4, 8}, 3, 2, ScaleFormat::kLog8, OffsetKind::kRegion),
    small({2, 4}, 2, 1, ScaleFormat::kF16, OffsetKind::kBlock),
    small({0, 0}, 2, 2, ScaleFormat::kLog8, OffsetKind::kNone),
    small({3, 16}, 3, 3, ScaleFormat::kF32, OffsetKind::kRegion),
    small({1, 16}, 1, 1, ScaleFormat::kLog8, OffsetKind::kBlock),
};

RegionFormat of_kind(int classes, int salient, bool column_scales, int integer_bits,
                     bool scattered) {
  RegionFormat shape = small({0, 0}, classes, salient, ScaleFormat::kF16, OffsetKind::kNone);
  shape.column_scales = column_scales;
  shape.integer_bits = integer_bits;
  shape.scattered = scattered;
  return shape;
}

std::vector<RegionFormat> shapes_to_damage() {
  std::vector<RegionFormat> shapes(std::begin(kShapes), std::end(kShapes));
  shapes.push_back(of_kind(2, 2, true, 0, false));
  shapes.push_back(of_kind(1, 2, false, 0, false));
  shapes.push_back(of_kind(1, 3, false, 0, false));
  shapes.push_back(of_kind(0, 0, false, 3, false));
  shapes.push_back(of_kind(1, 0, false, 8, true));
  shapes.push_back(of_kind(3, 2, true, 3, true));
  shapes.back().cols = 70;  // with gaps that need an index of deltas
  return shapes;
}

TEST(Damage, EveryBitOfEveryPlane) {
  for (const RegionFormat& shape : shapes_to_damage()) {
    SCOPED_TRACE(text_of(shape));
    const PackedPlanes good = pack(random_codes(shape, shape.cols == 70 ? 3 : 8));
    EXPECT_EQ(good.index_bits > 0, shape.cols == 70);
    ASSERT_TRUE(accepted(good));
    int refused = 0;
    for (const Plane& plane : good.planes) {
      for (size_t bit = 0; bit < 8 * plane.bytes.size(); ++bit) {
        PackedPlanes bad = copy_of(good);
        bytes_of(bad, plane.name)[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
        if (!accepted(bad)) {
          ++refused;
          continue;
        }
        decode_all(bad);
        // What is accepted is a layer: its codes are consistent up to the base, which log8 codes
        // do not pin down.
        const RegionCodes linear = unpack(bad);
        ASSERT_NO_THROW(check_codes(linear)) << plane.name << " bit " << bit;
      }
    }
    EXPECT_GT(refused, 0);
  }
}

std::vector<LayerCodes> products_and_trellises() {
  std::vector<LayerCodes> all = small_products();
  for (LayerCodes& codes : small_trellises()) all.push_back(std::move(codes));
  return all;
}

TEST(Damage, EveryBitOfEveryPlaneOfProducts) {
  for (const LayerCodes& codes : products_and_trellises()) {
    const PackedLayer good = pack(codes);
    SCOPED_TRACE(billm::describe(good));
    ASSERT_TRUE(accepted(good));
    int refused = 0;
    for (size_t i = 0; i < good.factors.size(); ++i) {
      const std::vector<Plane>* planes = stored_planes(good.factors[i]);
      for (size_t p = 0; planes != nullptr && p < planes->size(); ++p) {
        for (size_t bit = 0; bit < 8 * (*planes)[p].bytes.size(); ++bit) {
          PackedLayer bad = copy_of(good);
          bytes_of(bad.factors[i], p)[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
          if (!accepted(bad)) {
            ++refused;
            continue;
          }
          decode_all(bad);
          ASSERT_NO_THROW(check_codes(unpack(bad))) << i << " " << p << " bit " << bit;
        }
      }
    }
    EXPECT_GT(refused, 0);
  }
}

TEST(Damage, FactorsThatDoNotFit) {
  for (const LayerCodes& codes : small_products()) {
    PackedLayer layer = pack(codes);
    SCOPED_TRACE(billm::describe(layer));
    ASSERT_TRUE(accepted(layer));
    for (size_t i = 0; i + 1 < layer.factors.size(); ++i) {  // two factors are exchanged
      PackedLayer bad = copy_of(layer);
      std::swap(bad.factors[i], bad.factors[i + 1]);
      EXPECT_FALSE(accepted(bad));
    }
    for (PackedFactor& factor : layer.factors) {
      auto* rotation = std::get_if<Rotation>(&factor);
      if (rotation == nullptr) continue;
      const Rotation good = *rotation;
      for (const int64_t size : {int64_t{0}, int64_t{-1}, good.size + 1, int64_t{1} << 25}) {
        rotation->size = size;
        EXPECT_FALSE(accepted(layer)) << size;
      }
      *rotation = good;
    }
  }
  PackedLayer rotations;
  rotations.factors.emplace_back(Rotation{8, 1, false});
  EXPECT_FALSE(accepted(rotations));
  rotations.factors.emplace_back(Rotation{8, 1, true});
  EXPECT_FALSE(accepted(rotations));
  EXPECT_FALSE(accepted(PackedLayer()));
}

TEST(Damage, SizesAndDtypes) {
  for (const RegionFormat& shape : shapes_to_damage()) {
    SCOPED_TRACE(text_of(shape));
    const PackedPlanes good = pack(random_codes(shape, shape.cols == 70 ? 3 : 8));
    for (size_t i = 0; i < good.planes.size(); ++i) {
      SCOPED_TRACE(good.planes[i].name);
      PackedPlanes bad = copy_of(good);
      bad.planes[i].bytes = bad.planes[i].bytes.subspan(1);
      EXPECT_FALSE(accepted(bad));
      bad = copy_of(good);
      bad.planes[i].bytes = {};
      EXPECT_FALSE(accepted(bad));
      bad = copy_of(good);
      bad.planes[i].dtype = "I32";
      EXPECT_FALSE(accepted(bad));
      bad = copy_of(good);
      bad.planes[i].shape.push_back(1);
      EXPECT_FALSE(accepted(bad));
      bad = copy_of(good);
      bad.planes.erase(bad.planes.begin() + static_cast<std::ptrdiff_t>(i));
      EXPECT_FALSE(accepted(bad));
      bad = copy_of(good);
      bad.planes[i].name = "unknown";
      EXPECT_FALSE(accepted(bad));
      bad = copy_of(good);
      bad.planes.push_back(bad.planes[i]);
      EXPECT_FALSE(accepted(bad));
    }
    PackedPlanes bad = copy_of(good);
    for (int bits = kMinDelta; shape.scattered && bits <= kMaxDelta; ++bits) {
      bad.index_bits = good.index_bits == bits ? 0 : bits;
      EXPECT_FALSE(accepted(bad)) << bits;  // planes of another kind of index
    }
  }
}

// Expects that writing `value` to byte `at` (from the end if negative) of a plane is refused.
void expect_refused(const PackedPlanes& good, const std::string& plane, int at, int value) {
  PackedPlanes bad = copy_of(good);
  std::vector<std::byte>& bytes = bytes_of(bad, plane);
  bytes.at(at < 0 ? bytes.size() + at : at) = static_cast<std::byte>(value);
  EXPECT_FALSE(accepted(bad)) << plane;
}

TEST(Damage, WhatTheFormatForbids) {
  RegionFormat shape = small({2, 4}, 3, 1, ScaleFormat::kLog8, OffsetKind::kRegion);
  // 3 rows of 5 full groups and a tail of one column: 33 kept weights; 15 ranks in 3 words of 13
  // bits.
  PackedPlanes good = pack(random_codes(shape, 9));
  expect_refused(good, "signs", -1, 0x02);    // 33 = 4 * 8 + 1 bits
  expect_refused(good, "classes", 0, 243);    // no five base-3 digits
  expect_refused(good, "classes", -1, 27);    // 33 = 6 * 5 + 3 digits
  expect_refused(good, "salient", -1, 0x20);  // 21 columns
  expect_refused(good, "mask", -1, 0x80);     // 39 bits
  expect_refused(good, "mask", 1, 0x1f);      // 31 * 256 > 6^5 - 1
  expect_refused(good, "base", -1, 0xbf);     // negative
  expect_refused(good, "base", -1, 0x7f);     // at least 2^127, or not finite
  expect_refused(good, "offsets", 5, 0x80);   // -128
  expect_refused(good, "salient", 0, 0xff);   // classes >= S in salient columns
  shape = small({3, 8}, 1, 0, ScaleFormat::kF16, OffsetKind::kBlock);
  // 3 rows of 2 full groups and 5 columns that keep 2: 6 ranks in one word of 64 bits that could
  // hold 11, then 3 tails of 4 bits for 10 sets.
  good = pack(random_codes(shape, 10));
  expect_refused(good, "mask", 7, 0x80);    // more than 6 ranks
  expect_refused(good, "mask", 8, 0x0f);    // tail rank 15
  expect_refused(good, "scales", 1, 0x7c);  // infinite or NaN
  expect_refused(good, "offsets", 1, 0xfc);
}

TEST(Damage, WhatTheFormatForbidsOfIntegers) {
  PackedPlanes good = pack(random_codes(of_kind(0, 0, false, 3, false), 11));
  expect_refused(good, "integers", -1, 0x20);  // 63 * 3 = 23 * 8 + 5 bits
  expect_refused(good, "zeros", -1, 0x04);     // 6 * 3 = 2 * 8 + 2 bits
  expect_refused(good, "steps", 1, 0x7c);      // infinite or NaN
  expect_refused(good, "steps", 1, 0x80);      // negative, if only -0
  good = pack(random_codes(of_kind(1, 3, true, 0, false), 12));
  expect_refused(good, "column_scales", 1, 0x7c);
  expect_refused(good, "column_scales", 1, 0xbc);  // negative
  expect_refused(good, "classes", 0, 243);
  PackedPlanes zero = copy_of(good);
  bytes_of(zero, "column_scales")[0] = bytes_of(zero, "column_scales")[1] = std::byte{0};
  EXPECT_FALSE(accepted(zero));
  // A bitmap that says one integer more or less than is counted.
  good = pack(random_codes(of_kind(1, 0, false, 8, true), 10));
  ASSERT_EQ(good.index_bits, 0);
  for (const int change : {-1, 1}) {
    PackedPlanes bad = copy_of(good);
    bytes_of(bad, "integer_counts")[2] =
        static_cast<std::byte>(static_cast<int>(bytes_of(bad, "integer_counts")[2]) + change);
    EXPECT_FALSE(accepted(bad));
  }
  expect_refused(good, "integer_counts", 1, 0xff);  // more than there are columns
  expect_refused(good, "index", -1, 0x80);          // 63 bits
}

// Integers in columns 3 and 69 of one row: gaps 3 and 65.
TEST(Damage, IndexOfDeltas) {
  RegionFormat shape = of_kind(1, 0, false, 8, true);
  shape.rows = 1;
  shape.cols = 200;
  RegionCodes linear = make_region_codes(shape);
  std::fill(linear.region.begin(), linear.region.end(), uint8_t{1});
  linear.region[3] = linear.region[69] = 2;
  const PackedPlanes good = pack(linear);
  ASSERT_EQ(good.index_bits, 7);
  ASSERT_EQ(hex(good, "index"), "83 20");
  ASSERT_EQ(hex(good, "index_counts"), "02 00");
  expect_refused(good, "index", 0, 0xff);      // a skip where an integer is counted
  expect_refused(good, "index", -1, 0x60);     // past the last column: 4 + 193 ...
  expect_refused(good, "index", -1, 0xa0);     // padding
  expect_refused(good, "index_counts", 0, 1);  // other sizes
  expect_refused(good, "integer_counts", 0, 1);
  PackedPlanes bad = copy_of(good);
  bytes_of(bad, "index") = {std::byte{0xff}, std::byte{0x3f}};  // two skips: nothing found
  bytes_of(bad, "integer_counts")[0] = std::byte{0};
  EXPECT_FALSE(accepted(bad));
}

}  // namespace
}  // namespace billm::test
