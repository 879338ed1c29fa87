// Damaged planes: what the format forbids is refused, and no damage makes the decoder read or write
// outside of its memory (the asan build looks).
#include <gtest/gtest.h>

#include "format/layer_testing.h"
#include "support/random_layer.h"

namespace billm::test {
namespace {

LinearShape small(NmPattern nm, int classes, int salient, ScaleFormat format, OffsetKind offsets) {
  LinearShape shape;
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

const LinearShape kShapes[] = {
    small({4, 8}, 3, 2, ScaleFormat::kLog8, OffsetKind::kRegion),
    small({2, 4}, 2, 1, ScaleFormat::kF16, OffsetKind::kBlock),
    small({0, 0}, 2, 2, ScaleFormat::kLog8, OffsetKind::kNone),
    small({3, 16}, 3, 3, ScaleFormat::kF32, OffsetKind::kRegion),
    small({1, 16}, 1, 1, ScaleFormat::kLog8, OffsetKind::kBlock),
};

TEST(Damage, EveryBitOfEveryPlane) {
  for (const LinearShape& shape : kShapes) {
    SCOPED_TRACE(text_of(shape));
    const PackedLinear good = pack(random_codes(shape, 7));
    ASSERT_TRUE(accepted(good));
    int refused = 0;
    for (const Plane& plane : good.planes) {
      for (size_t bit = 0; bit < 8 * plane.bytes.size(); ++bit) {
        PackedLinear bad = copy_of(good);
        bytes_of(bad, plane.name)[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
        if (!accepted(bad)) {
          ++refused;
          continue;
        }
        decode_all(bad);
        // What is accepted is a layer: its codes are consistent up to the base, which log8 codes
        // do not pin down.
        const QuantizedLinear linear = unpack(bad);
        ASSERT_NO_THROW(check_codes(linear)) << plane.name << " bit " << bit;
      }
    }
    EXPECT_GT(refused, 0);
  }
}

TEST(Damage, SizesAndDtypes) {
  for (const LinearShape& shape : kShapes) {
    SCOPED_TRACE(text_of(shape));
    const PackedLinear good = pack(random_codes(shape, 8));
    for (size_t i = 0; i < good.planes.size(); ++i) {
      SCOPED_TRACE(good.planes[i].name);
      PackedLinear bad = copy_of(good);
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
    PackedLinear bad = copy_of(good);
    bad.layout = "other\nlayout";
    EXPECT_FALSE(accepted(bad));
  }
}

// Expects that writing `value` to byte `at` (from the end if negative) of a plane is refused.
void expect_refused(const PackedLinear& good, const std::string& plane, int at, int value) {
  PackedLinear bad = copy_of(good);
  std::vector<std::byte>& bytes = bytes_of(bad, plane);
  bytes.at(at < 0 ? bytes.size() + at : at) = static_cast<std::byte>(value);
  EXPECT_FALSE(accepted(bad)) << plane;
}

TEST(Damage, WhatTheFormatForbids) {
  LinearShape shape = small({2, 4}, 3, 1, ScaleFormat::kLog8, OffsetKind::kRegion);
  // 3 rows of 5 full groups and a tail of one column: 33 kept weights; 15 ranks in 3 words of 13
  // bits.
  PackedLinear good = pack(random_codes(shape, 9));
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

}  // namespace
}  // namespace billm::test
