// The bytes of small layers, derived by hand from docs/format.md: a change of any of them breaks
// every packed model that exists.
#include <gtest/gtest.h>

#include "format/layer_testing.h"

namespace billm::test {
namespace {

// Codes of one kept weight after the other, row by row: class and sign.
struct Code {
  int cls, sign;
};

RegionFormat shape_of(int64_t rows, int64_t cols, int classes, int salient, ScaleFormat format) {
  RegionFormat shape;
  shape.rows = rows;
  shape.cols = cols;
  shape.classes = classes;
  shape.salient_classes = salient;
  shape.scale_format = format;
  return shape;
}

// `keep` ([rows * cols] of 'x' and '.') may be empty: all kept.
RegionCodes layer_of(const RegionFormat& shape, const std::vector<Code>& codes,
                     const std::string& keep, const std::vector<uint8_t>& salient) {
  RegionCodes linear = make_region_codes(shape);
  linear.salient = salient;
  size_t next = 0;
  for (int64_t i = 0; i < shape.rows * shape.cols; ++i) {
    if (!keep.empty() && keep[static_cast<size_t>(i)] != 'x') continue;
    const Code code = codes.at(next++);
    const bool column_is_salient =
        !salient.empty() && salient[static_cast<size_t>(i % shape.cols)] != 0;
    linear.region[static_cast<size_t>(i)] =
        static_cast<uint8_t>(1 + code.cls + (column_is_salient ? shape.classes : 0));
    linear.code[static_cast<size_t>(i)] = static_cast<uint8_t>(code.sign);
  }
  EXPECT_EQ(next, codes.size());
  return linear;
}

TEST(Bytes, OneClassF32) {
  RegionCodes linear = layer_of(shape_of(1, 5, 1, 0, ScaleFormat::kF32),
                                {{0, 1}, {0, 0}, {0, 1}, {0, 1}, {0, 0}}, "", {});
  linear.scale = {1.5f};
  const PackedPlanes packed = pack(linear);
  ASSERT_EQ(packed.planes.size(), 2u);
  EXPECT_EQ(hex(packed, "signs"), "0d");  // bits 0, 2, 3
  EXPECT_EQ(hex(packed, "scales"), "00 00 c0 3f");
  EXPECT_EQ(packed.find("signs")->dtype, "U8");
  EXPECT_EQ(packed.find("scales")->dtype, "F32");
  EXPECT_EQ(packed.find("scales")->shape, (std::vector<int64_t>{1, 1, 1}));
  EXPECT_EQ(packed.bytes(), 5);
  EXPECT_DOUBLE_EQ(PackedLayer(copy_of(packed)).stored_bits(), 8.0);
  EXPECT_EQ(describe(packed),
            R"({"layout":"planes","rows":1,"cols":5,"block_size":128,"n":0,"m":0,"classes":1,)"
            R"("salient_classes":0,"scale_format":"f32","offsets":"none"})");
  EXPECT_EQ(decode_all(packed), (std::vector<float>{1.5f, -1.5f, 1.5f, 1.5f, -1.5f}));
}

TEST(Bytes, TwoAndTwoClassesLog8RegionOffsets) {
  RegionFormat shape = shape_of(2, 5, 2, 2, ScaleFormat::kLog8);
  shape.block_size = 4;  // groups of 4 and 1 columns
  shape.offset_kind = OffsetKind::kRegion;
  RegionCodes linear = layer_of(shape,
                                {{0, 1},
                                 {1, 1},
                                 {1, 0},
                                 {0, 0},
                                 {1, 1},  //
                                 {1, 0},
                                 {0, 0},
                                 {0, 0},
                                 {1, 1},
                                 {1, 0}},  //
                                "", {0, 1, 0, 0, 1});
  linear.base = 2.0f;
  // Codes: 255 = 2, 247 = 2 * 2^(-1/2), 239 = 1, 238 = 2^(-1/16), 223 = 0.5, 0 = 0,
  // 1 = 2 * 2^(-254/16) = 2 * 2^(2/16) * 2^-16.
  linear.scale = {
      2.0f, 0x1.6a09e6p+0f, 1.0f,  0x1.ea4afap-1f, 0.5f, 0.0f, 0x1.172b84p-15f, 1.0f, 1.0f, 0.5f,
      0.0f, 0.0f,           0.25f, 0.25f,          2.0f, 0.0f};
  // Units: group 0: row 0 2/128, row 1 T[8]/128; group 1: row 0 2/128, row 1 0.5/128.
  constexpr float kUnit = 0x1.6a09e6p-7f;
  linear.offset = {0.25f, kUnit, -0.015625f, -127 * kUnit, 0, 0, 0, 127 * kUnit, 0.5f, 0.25f, 0, 0,
                   0,     0,     0,          -0.00390625f};
  const PackedPlanes packed = pack(linear);
  ASSERT_EQ(packed.planes.size(), 6u);
  EXPECT_EQ(hex(packed, "signs"), "13 01");
  EXPECT_EQ(hex(packed, "classes"), "36 03");
  EXPECT_EQ(hex(packed, "salient"), "12");
  EXPECT_EQ(hex(packed, "scales"), "ff f7 ef ee df 00 01 ef ef df 00 00 cf cf ff 00");
  EXPECT_EQ(hex(packed, "base"), "00 00 00 40");
  EXPECT_EQ(hex(packed, "offsets"), "10 01 ff 81 00 00 00 7f 20 40 00 00 00 00 00 ff");
  EXPECT_EQ(packed.find("scales")->shape, (std::vector<int64_t>{2, 4, 2}));
  EXPECT_EQ(packed.find("scales")->dtype, "U8");
  EXPECT_EQ(packed.find("offsets")->shape, (std::vector<int64_t>{2, 4, 2}));
  EXPECT_EQ(packed.find("offsets")->dtype, "I8");
  EXPECT_EQ(packed.find("base")->shape, (std::vector<int64_t>{1}));
  const std::vector<float> weight = decode_all(packed);
  EXPECT_EQ(weight[0], 0.25f + 2.0f);            // group 0, region 1, row 0
  EXPECT_EQ(weight[1], 0.0f + 0x1.172b84p-15f);  // region 4 (salient, class 1)
  EXPECT_EQ(weight[2], -0.015625f - 1.0f);       // region 2
  EXPECT_EQ(weight[3], 0.25f - 2.0f);            // region 1, sign 0
  EXPECT_EQ(weight[4], 2.0f);                    // group 1, region 4
  EXPECT_EQ(weight[5], -127 * kUnit - 0x1.ea4afap-1f);
  EXPECT_EQ(weight[9], -0.00390625f - 0.0f);
}

TEST(Bytes, ThreeClassesBase3) {
  RegionCodes linear =
      layer_of(shape_of(1, 7, 3, 2, ScaleFormat::kF16),
               {{2, 0}, {1, 1}, {0, 1}, {1, 1}, {2, 0}, {2, 0}, {0, 1}}, "", {0, 1, 1, 1, 0, 0, 0});
  linear.scale = {0.5f, -2.0f, 1.0f, 0x1p-24f, 65504.0f};
  const PackedPlanes packed = pack(linear);
  EXPECT_EQ(hex(packed, "classes"), "c2 02");  // 2 + 1*3 + 0*9 + 1*27 + 2*81; 2 + 0*3
  EXPECT_EQ(hex(packed, "signs"), "4e");
  EXPECT_EQ(hex(packed, "salient"), "0e");
  EXPECT_EQ(hex(packed, "scales"), "00 38 00 c0 00 3c 01 00 ff 7b");
  EXPECT_EQ(packed.find("scales")->dtype, "F16");
  EXPECT_EQ(hex(packed, "base"), "(absent)");
  EXPECT_EQ(decode_all(packed), (std::vector<float>{-1, 65504, 0x1p-24f, 65504, -1, -1, 0.5f}));
}

TEST(Bytes, BlockOffsets) {
  RegionFormat shape = shape_of(1, 2, 1, 0, ScaleFormat::kF16);
  shape.block_size = 1;
  shape.offset_kind = OffsetKind::kBlock;
  RegionCodes linear = layer_of(shape, {{0, 1}, {0, 0}}, "", {});
  linear.scale = {0.5f, 2.0f};
  linear.offset = {1.0f, -1.5f};
  const PackedPlanes f16 = pack(linear);
  EXPECT_EQ(hex(f16, "offsets"), "00 3c 00 be");
  EXPECT_EQ(f16.find("offsets")->dtype, "F16");
  EXPECT_EQ(f16.find("offsets")->shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(decode_all(f16), (std::vector<float>{1.5f, -3.5f}));
  linear.shape.scale_format = ScaleFormat::kF32;
  EXPECT_EQ(hex(pack(linear), "offsets"), "00 00 80 3f 00 00 c0 bf");
}

TEST(Bytes, MaskWithTails) {
  RegionFormat shape = shape_of(2, 7, 1, 0, ScaleFormat::kF32);
  shape.nm = {2, 4};  // C = 6, G = 5, w = 13; tails keep ceil(3 * 2 / 4) = 2: 3 sets, 2 bits
  RegionCodes linear = layer_of(shape, std::vector<Code>(8, Code{0, 1}),
                                "x.x.xx."
                                ".x.x.xx",
                                {});
  linear.scale = {1.0f, 3.0f};
  const PackedPlanes packed = pack(linear);
  // {0, 2} has rank C(0,1) + C(2,2) = 1, {1, 3} has C(1,1) + C(3,2) = 4: word 1 + 4 * 6 = 25.
  // Tails {0, 1}: rank 0, {1, 2}: rank 2, in bits 13-14 and 15-16.
  EXPECT_EQ(hex(packed, "mask"), "19 00 01");
  EXPECT_EQ(hex(packed, "signs"), "ff");
  EXPECT_EQ(decode_all(packed), (std::vector<float>{1, 0, 1, 0, 1, 1, 0, 0, 3, 0, 3, 0, 3, 3}));
}

TEST(Bytes, MaskOfTwoWords) {
  RegionFormat shape = shape_of(1, 64, 1, 0, ScaleFormat::kF32);
  shape.nm = {4, 8};                               // C = 70, G = 7, w = 43
  std::string keep = "....xxxx";                   // the last rank, 69
  for (int g = 1; g < 6; ++g) keep += "xxxx....";  // rank 0
  keep += "xxx.x...";                              // rank 1, times 70^6 = 0x1b646d4640
  keep += "xx.xx...";                              // rank 2, in the second word
  RegionCodes linear = layer_of(shape, std::vector<Code>(32, Code{0, 1}), keep, {});
  linear.scale = {1.0f};
  EXPECT_EQ(hex(pack(linear), "mask"), "85 46 6d 64 1b 10 00 00 00 00 00");
}

TEST(Bytes, NoMaskPlaneWithoutBits) {
  RegionFormat shape = shape_of(2, 8, 1, 0, ScaleFormat::kF32);
  shape.nm = {8, 8};
  RegionCodes linear = layer_of(shape, std::vector<Code>(16, Code{0, 1}), "", {});
  EXPECT_EQ(hex(pack(linear), "mask"), "(absent)");
  shape.cols = 1;
  shape.nm = {4, 8};  // the tail keeps ceil(1 * 4 / 8) = 1 of 1
  linear = layer_of(shape, std::vector<Code>(2, Code{0, 1}), "", {});
  EXPECT_EQ(hex(pack(linear), "mask"), "(absent)");
}

TEST(Bytes, ZeroScaleKeepsItsSign) {
  RegionCodes linear = layer_of(shape_of(1, 2, 1, 0, ScaleFormat::kF32), {{0, 1}, {0, 0}}, "", {});
  EXPECT_TRUE(same_bits(decode_all(pack(linear)), {0.0f, -0.0f}));
}

TEST(Bytes, ColumnScales) {
  RegionFormat shape = shape_of(1, 3, 1, 0, ScaleFormat::kF32);
  shape.column_scales = true;
  RegionCodes linear = layer_of(shape, {{0, 1}, {0, 0}, {0, 1}}, "", {});
  linear.scale = {1.5f};
  linear.column_scale = {1.0f, 0.5f, 3.0f};
  const PackedPlanes packed = pack(linear);
  EXPECT_EQ(hex(packed, "column_scales"), "00 3c 00 38 00 42");
  EXPECT_EQ(packed.find("column_scales")->dtype, "F16");
  EXPECT_EQ(packed.find("column_scales")->shape, (std::vector<int64_t>{3}));
  EXPECT_EQ(packed.bytes(), 1 + 4 + 6);
  EXPECT_EQ(describe(packed),
            R"({"layout":"planes","rows":1,"cols":3,"block_size":128,"n":0,"m":0,"classes":1,)"
            R"("salient_classes":0,"scale_format":"f32","offsets":"none","column_scales":true})");
  EXPECT_EQ(decode_all(packed), (std::vector<float>{1.5f, -0.75f, 4.5f}));
}

// One level in ordinary columns, two or three in salient ones: class digits of the latter only.
TEST(Bytes, ClassesOfSalientColumnsOnly) {
  RegionCodes linear =
      layer_of(shape_of(2, 4, 1, 2, ScaleFormat::kF16),
               {{0, 1}, {1, 0}, {0, 0}, {0, 1}, {0, 0}, {0, 1}, {0, 1}, {1, 0}}, "", {0, 1, 0, 1});
  linear.scale = {1.0f, 2.0f, 3.0f, 4.0f, 5.0f, 6.0f};
  PackedPlanes packed = pack(linear);
  EXPECT_EQ(hex(packed, "signs"), "69");
  EXPECT_EQ(hex(packed, "classes"), "09");  // 1, 0; 0, 1
  EXPECT_EQ(hex(packed, "salient"), "0a");
  EXPECT_EQ(decode_all(packed), (std::vector<float>{1, -5, -1, 3, -2, 4, 2, -6}));
  linear = layer_of(shape_of(1, 4, 1, 3, ScaleFormat::kF16), {{2, 1}, {0, 0}, {0, 0}, {1, 1}}, "",
                    {1, 0, 1, 1});
  linear.scale = {1.0f, 2.0f, 3.0f, 4.0f};
  packed = pack(linear);
  EXPECT_EQ(hex(packed, "classes"), "0b");  // 2 + 0 * 3 + 1 * 9
  EXPECT_EQ(decode_all(packed), (std::vector<float>{4, -1, -2, 3}));
}

TEST(Bytes, IntegersEverywhere) {
  RegionFormat shape = shape_of(1, 5, 0, 0, ScaleFormat::kF16);
  shape.block_size = 4;
  shape.integer_bits = 3;
  RegionCodes linear = make_region_codes(shape);
  linear.region.assign(5, 1);
  linear.code = {0, 7, 3, 4, 6};
  linear.step = {0.5f, 2.0f};
  linear.zero = {3, 7};
  const PackedPlanes packed = pack(linear);
  EXPECT_EQ(hex(packed, "integers"), "f8 68");  // 0 + 7*8 + 3*64 + 4*512 + 6*4096 = 0x68f8
  EXPECT_EQ(hex(packed, "steps"), "00 38 00 40");
  EXPECT_EQ(hex(packed, "zeros"), "3b");
  EXPECT_EQ(packed.find("steps")->dtype, "F16");
  EXPECT_EQ(packed.find("steps")->shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(packed.planes.size(), 3u);
  EXPECT_EQ(packed.bytes(), 2 + 4 + 1);
  EXPECT_EQ(describe(packed),
            R"({"layout":"planes","rows":1,"cols":5,"block_size":4,"n":0,"m":0,"classes":0,)"
            R"("salient_classes":0,"scale_format":"f16","offsets":"none","integer_bits":3})");
  EXPECT_EQ(decode_all(packed), (std::vector<float>{-1.5f, 2.0f, 0.0f, 0.5f, -2.0f}));
}

// 2 bits in groups of 128: 2 + (16 + 2) / 128 bits a weight.
TEST(Bytes, CostOfTwoBits) {
  RegionFormat shape = shape_of(4, 512, 0, 0, ScaleFormat::kF16);
  shape.integer_bits = 2;
  RegionCodes linear = make_region_codes(shape);
  linear.region.assign(linear.region.size(), 1);
  EXPECT_DOUBLE_EQ(PackedLayer(pack(linear)).stored_bits(), 2 + 18.0 / 128);
}

TEST(Bytes, ScatteredIntegersByBitmap) {
  RegionFormat shape = shape_of(2, 4, 1, 0, ScaleFormat::kF16);
  shape.integer_bits = 8;
  shape.scattered = true;
  RegionCodes linear = make_region_codes(shape);
  linear.region = {1, 2, 1, 2, 1, 1, 2, 1};
  linear.code = {1, 200, 0, 0, 1, 1, 129, 0};
  linear.scale = {1.0f, 2.0f};
  linear.step = {0.25f, 0.5f};
  linear.zero = {100, 128};
  const PackedPlanes packed = pack(linear);
  EXPECT_EQ(hex(packed, "signs"), "0d");  // 1 0, 1 1 0
  EXPECT_EQ(hex(packed, "integers"), "c8 00 81");
  EXPECT_EQ(hex(packed, "steps"), "00 34 00 38");
  EXPECT_EQ(hex(packed, "zeros"), "64 80");
  EXPECT_EQ(hex(packed, "integer_counts"), "02 00 01 00");
  EXPECT_EQ(packed.find("integer_counts")->dtype, "U16");
  EXPECT_EQ(packed.find("steps")->shape, (std::vector<int64_t>{2}));
  EXPECT_EQ(hex(packed, "index"), "4a");
  EXPECT_EQ(hex(packed, "index_counts"), "(absent)");
  EXPECT_EQ(packed.bytes(), 1 + 4 + 3 + 4 + 2 + 4 + 1);
  EXPECT_EQ(describe(packed),
            R"({"layout":"planes","rows":2,"cols":4,"block_size":128,"n":0,"m":0,"classes":1,)"
            R"("salient_classes":0,"scale_format":"f16","offsets":"none","integer_bits":8,)"
            R"("index":"bitmap"})");
  EXPECT_EQ(decode_all(packed), (std::vector<float>{1, 25, -1, -25, 2, 2, 0.5f, -2}));
}

TEST(Bytes, ScatteredIntegersByDeltas) {
  RegionFormat shape = shape_of(2, 100, 1, 0, ScaleFormat::kF16);
  shape.integer_bits = 8;
  shape.scattered = true;
  RegionCodes linear = make_region_codes(shape);
  linear.region.assign(200, 1);
  linear.scale = {1.0f, 2.0f};
  linear.step = {1.0f, 1.0f};
  // Gaps 0, 6, 7, 14; 15. In 3 bits with 7 = skip: 0 6 | 7 0 | 7 7 0; 7 7 1: 10 entries, 30 bits.
  // In 4 bits with 15 = skip: 0 6 7 14; 15 0: 24 bits. In 5 bits: 25.
  int64_t at = 0;
  for (const int gap : {0, 6, 7, 14}) {
    at += gap;
    linear.region[static_cast<size_t>(at++)] = 2;
  }
  linear.region[115] = 2;
  const PackedPlanes packed = pack(linear);
  EXPECT_EQ(packed.index_bits, 4);
  EXPECT_EQ(hex(packed, "index"), "60 e7 0f");
  EXPECT_EQ(hex(packed, "integer_counts"), "04 00 01 00");
  EXPECT_EQ(hex(packed, "index_counts"), "04 00 02 00");
  EXPECT_EQ(packed.find("index_counts")->shape, (std::vector<int64_t>{2}));
  const std::string end = R"("integer_bits":8,"index":"deltas","index_bits":4})";
  const std::string text = describe(packed);
  EXPECT_EQ(text.substr(text.size() - end.size()), end);
}

}  // namespace
}  // namespace billm::test
