// RegionCodes: what a code is worth, and that check_codes notices every inconsistency.
#include "billm/codes/region_codes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>

#include "billm/base/error.h"
#include "support/random_layer.h"

namespace billm {
namespace {

RegionFormat shape_48() {
  RegionFormat shape;
  shape.rows = 2;
  shape.cols = 11;
  shape.block_size = 8;
  shape.nm = {4, 8};
  shape.classes = 3;
  shape.salient_classes = 2;
  return shape;
}

TEST(NmPattern, Kept) {
  const NmPattern nm{4, 8};
  const int expected[] = {0, 1, 1, 2, 2, 3, 3, 4, 4};  // ceil(t / 2)
  for (int t = 0; t <= 8; ++t) EXPECT_EQ(nm.kept(t), expected[t]);
  EXPECT_EQ((NmPattern{1, 16}.kept(1)), 1);
  EXPECT_EQ((NmPattern{5, 8}.kept(3)), 2);
  EXPECT_FALSE((NmPattern{}.active()));
  EXPECT_EQ(nm.text(), "4:8");
}

TEST(RegionCodes, ValuesByRegion) {
  RegionFormat shape;
  shape.rows = 1;
  shape.cols = 3;
  shape.block_size = 2;
  shape.nm = {0, 0};
  shape.offset_kind = OffsetKind::kRegion;
  shape.scale_format = ScaleFormat::kF32;
  RegionCodes linear = make_region_codes(shape);
  ASSERT_EQ(linear.scale.size(), 8u);  // 2 groups, 4 regions, 1 row
  linear.region = {0, 2, 3};
  linear.code = {0, 0, 1};
  for (size_t i = 0; i < 8; ++i) {
    linear.scale[i] = static_cast<float>(1 << i);
    linear.offset[i] = 1000.0f * static_cast<float>(i);
  }
  EXPECT_EQ(dequantize(linear), (std::vector<float>{0, 1000 - 2, 6000 + 64}));
  linear.shape.offset_kind = OffsetKind::kBlock;
  linear.offset = {10, 20};
  EXPECT_EQ(dequantize(linear), (std::vector<float>{0, 10 - 2, 20 + 64}));
  linear.shape.offset_kind = OffsetKind::kNone;
  linear.offset = {};
  EXPECT_EQ(dequantize(linear), (std::vector<float>{0, -2, 64}));
}

TEST(RegionCodes, IntegersAndColumnScales) {
  RegionFormat shape;
  shape.rows = 2;
  shape.cols = 3;
  shape.block_size = 2;
  shape.classes = shape.salient_classes = 0;
  shape.scale_format = ScaleFormat::kF16;
  shape.integer_bits = 4;
  RegionCodes linear = make_region_codes(shape);
  ASSERT_EQ(linear.step.size(), 4u);  // 2 groups, 2 rows
  linear.region.assign(6, 1);
  linear.code = {0, 15, 8, 7, 1, 2};
  linear.step = {1, 2, 4, 8};
  linear.zero = {0, 5, 15, 2};
  EXPECT_EQ(dequantize(linear), (std::vector<float>{0, 15, -28, 4, -8, 0}));
  EXPECT_NO_THROW(check_codes(linear));
  EXPECT_EQ(region_shares(linear), (std::vector<double>{0, 1}));

  shape.classes = 1;
  shape.scattered = shape.column_scales = true;
  linear = make_region_codes(shape);
  ASSERT_EQ(linear.step.size(), 2u);
  linear.region = {2, 1, 1, 2, 2, 1};
  linear.code = {3, 1, 0, 9, 0, 1};
  linear.scale = {1, 2, 3, 4};
  linear.column_scale = {1, 2, 0.5f};
  linear.step = {0.5f, 0.25f};
  linear.zero = {1, 8};
  EXPECT_EQ(dequantize(linear), (std::vector<float>{1, 2, -1.5f, 0.25f, -4, 2}));
  EXPECT_NO_THROW(check_codes(linear));
  EXPECT_EQ(region_shares(linear), (std::vector<double>{0, 0.5, 0.5}));
}

TEST(RegionCodes, Shares) {
  RegionCodes linear = make_region_codes(shape_48());
  std::fill(linear.region.begin(), linear.region.begin() + 11, uint8_t{3});
  linear.salient[4] = 1;
  const std::vector<double> shares = region_shares(linear);
  EXPECT_EQ(shares, (std::vector<double>{0.5, 0, 0, 0.5, 0, 0}));
  EXPECT_DOUBLE_EQ(salient_share(linear), 1.0 / 11);
  linear.salient.clear();
  EXPECT_EQ(salient_share(linear), 0);
}

TEST(CheckCodes, NoticesEveryInconsistency) {
  const RegionCodes good = test::random_codes(shape_48(), 3);
  ASSERT_NO_THROW(check_codes(good));
  const size_t kept = static_cast<size_t>(
      std::find_if(good.region.begin(), good.region.end(), [](uint8_t r) { return r != 0; }) -
      good.region.begin());
  const size_t pruned = static_cast<size_t>(
      std::find(good.region.begin(), good.region.end(), uint8_t{0}) - good.region.begin());
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const std::pair<const char*, std::function<void(RegionCodes&)>> breaks[] = {
      {"region size", [](auto& l) { l.region.pop_back(); }},
      {"code size", [](auto& l) { l.code.push_back(0); }},
      {"scale size", [](auto& l) { l.scale.clear(); }},
      {"salient size", [](auto& l) { l.salient.clear(); }},
      {"offset size", [](auto& l) { l.offset.push_back(0); }},
      {"one kept less", [&](auto& l) { l.region[kept] = l.code[kept] = 0; }},
      {"one kept more", [&](auto& l) { l.region[pruned] = 1; }},
      {"code of a pruned weight", [&](auto& l) { l.code[pruned] = 1; }},
      {"code 2", [&](auto& l) { l.code[kept] = 2; }},
      {"region 6", [&](auto& l) { l.region[kept] = 6; }},
      {"region 255", [&](auto& l) { l.region[kept] = 255; }},
      {"region of the other columns", [&](auto& l) { l.salient[kept % 11] ^= 1; }},
      {"salient 2", [](auto& l) { std::fill(l.salient.begin(), l.salient.end(), uint8_t{2}); }},
      {"NaN", [&](auto& l) { l.scale[0] = kNan; }},
      {"off the grid", [](auto& l) { l.scale[0] = l.base * 0.97f; }},
      {"negative on the log8 grid", [](auto& l) { l.scale[0] = -l.base; }},
      {"negative base", [](auto& l) { l.base = -1; }},
      {"NaN base", [&](auto& l) { l.base = kNan; }},
  };
  for (const auto& [what, change] : breaks) {
    RegionCodes bad = good;
    change(bad);
    EXPECT_THROW(check_codes(bad), Error) << what;
  }
  RegionFormat shape = shape_48();
  shape.scale_format = ScaleFormat::kF16;
  shape.offset_kind = OffsetKind::kBlock;
  RegionCodes half = test::random_codes(shape, 4);
  half.scale[0] = 1.0f / 3;
  EXPECT_THROW(check_codes(half), Error);
  half.scale[0] = 0;
  ASSERT_NO_THROW(check_codes(half));
  half.offset[0] = 1.0f / 3;
  EXPECT_THROW(check_codes(half), Error);
  half.offset[0] = kNan;
  EXPECT_THROW(check_codes(half), Error);
}

TEST(CheckCodes, NoticesBadIntegersAndColumnScales) {
  RegionFormat shape;
  shape.rows = 4;
  shape.cols = 11;
  shape.classes = 1;
  shape.salient_classes = 0;
  shape.integer_bits = 3;
  shape.scattered = shape.column_scales = true;
  const RegionCodes good = test::random_codes(shape, 8);  // a tenth are integers
  ASSERT_NO_THROW(check_codes(good));
  const auto found = std::find(good.region.begin(), good.region.end(), uint8_t{2});
  ASSERT_NE(found, good.region.end());
  const auto integer = static_cast<size_t>(found - good.region.begin());
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const std::pair<const char*, std::function<void(RegionCodes&)>> breaks[] = {
      {"column scales size", [](auto& l) { l.column_scale.pop_back(); }},
      {"column scale 0", [](auto& l) { l.column_scale[1] = 0; }},
      {"column scale off the grid", [](auto& l) { l.column_scale[1] = 1.0f / 3; }},
      {"column scale NaN", [&](auto& l) { l.column_scale[1] = kNan; }},
      {"steps size", [](auto& l) { l.step.push_back(1); }},
      {"step off the grid", [](auto& l) { l.step[0] = 1.0f / 3; }},
      {"negative step", [](auto& l) { l.step[0] = -1; }},
      {"step -0", [](auto& l) { l.step[0] = -0.0f; }},
      {"step NaN", [&](auto& l) { l.step[0] = kNan; }},
      {"zeros size", [](auto& l) { l.zero.clear(); }},
      {"zero 8", [](auto& l) { l.zero[0] = 8; }},
      {"code 8", [&](auto& l) { l.code[integer] = 8; }},
      {"region 3", [&](auto& l) { l.region[integer] = 3; }},
      {"pruned", [&](auto& l) { l.region[integer] = l.code[integer] = 0; }},
  };
  for (const auto& [what, change] : breaks) {
    RegionCodes bad = good;
    change(bad);
    EXPECT_THROW(check_codes(bad), Error) << what;
  }
}

TEST(CheckRegionFormat, Contradictions) {
  RegionFormat shape;
  shape.rows = shape.cols = 16;
  shape.classes = 1;
  const auto accepted = [&] {
    try {
      check_region_format(shape, "here");
      return true;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      return false;
    }
  };
  for (shape.salient_classes = 0; shape.salient_classes <= 3; ++shape.salient_classes) {
    EXPECT_TRUE(accepted()) << shape.salient_classes;
  }
  EXPECT_FALSE(accepted());  // 4
  shape.salient_classes = 2;
  shape.nm = {4, 8};
  EXPECT_FALSE(accepted());
  shape.nm = {};
  shape.integer_bits = 8;
  EXPECT_FALSE(accepted());  // classes beside nothing but integers
  shape.scattered = true;
  EXPECT_FALSE(accepted());  // S > K
  shape.salient_classes = 1;
  EXPECT_TRUE(accepted());
  shape.integer_bits = 1;
  EXPECT_FALSE(accepted());
  shape.integer_bits = 9;
  EXPECT_FALSE(accepted());
  shape.integer_bits = 0;
  EXPECT_FALSE(accepted());
  shape.integer_bits = 8;
  shape.nm = {4, 8};
  EXPECT_FALSE(accepted());
}

TEST(OffsetKind, Names) {
  for (const OffsetKind kind : {OffsetKind::kNone, OffsetKind::kBlock, OffsetKind::kRegion}) {
    EXPECT_EQ(offset_kind_from_name(offset_kind_name(kind)), kind);
  }
  EXPECT_THROW(offset_kind_from_name("rows"), Error);
}

}  // namespace
}  // namespace billm
