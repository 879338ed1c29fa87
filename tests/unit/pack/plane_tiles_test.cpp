// The form in which layers are run, and the CPU kernels over it, against the layer's own weights:
// every kind of layer, every order of tiles, every Highway target of this machine.
#include "billm/pack/plane_tiles.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/cpu/gemv.h"
#include "kernels/cpu/row_tiles.h"
#include "support/compare.h"
#include "support/random_layer.h"

namespace billm {
namespace {

using kernels::PlaneTilesView;
using kernels::TileOrder;

constexpr TileOrder kOrders[] = {
    {.tile_rows = 64, .interleave = 1, .split = true, .folded = true},
    {.tile_rows = 16, .interleave = 4, .split = false, .folded = true},
    {.tile_rows = 32, .interleave = 16, .split = false, .folded = false}};

std::vector<RegionFormat> all_shapes(int every) {
  std::vector<RegionFormat> shapes = test::shape_sweep(every);
  for (const RegionFormat& shape : test::shape_sweep_of_kinds(every)) shapes.push_back(shape);
  // Segments of more than one per group.
  for (const int64_t rows : {3, 70}) {
    RegionFormat wide;
    wide.rows = rows;
    wide.cols = 1100;
    wide.block_size = 4096;
    wide.column_scales = rows == 3;
    shapes.push_back(wide);
    wide.cols = 700;
    wide.block_size = 600;
    wide.nm = {4, 8};
    wide.classes = wide.salient_classes = 3;
    wide.column_scales = false;
    shapes.push_back(wide);
  }
  std::vector<RegionFormat> supported;
  for (const RegionFormat& shape : shapes) {
    if (PlaneTiles::unsupported(shape).empty()) supported.push_back(shape);
  }
  return supported;
}

// [rows, cols] from the columns of decode_tiles().
std::vector<float> transposed(const PlaneTilesView& view, const std::vector<float>& columns,
                              int64_t stride) {
  std::vector<float> w;
  for (int64_t row = 0; row < view.rows; ++row) {
    for (int64_t column = 0; column < view.cols; ++column) {
      w.push_back(columns[static_cast<size_t>(column * stride + row)]);
    }
  }
  return w;
}

// A sum of up to nine levels or steps in fp32 instead of one value.
test::Tolerance decoded(const RegionCodes& linear) {
  float largest = 0;
  for (const float value : linear.scale) largest = std::max(largest, std::fabs(value));
  for (const float value : linear.step) largest = std::max(largest, 255 * value);
  for (const float value : linear.offset) largest = std::max(largest, std::fabs(value));
  float scale = 1;
  for (const float value : linear.column_scale) scale = std::max(scale, value);
  return {.absolute = 2e-6 * largest * scale};
}

TEST(PlaneTiles, DecodesToTheSameWeightsInEveryOrder) {
  for (const RegionFormat& shape : all_shapes(1)) {
    const RegionCodes linear = test::random_codes(shape, 1);
    const PackedPlanes packed = pack(linear);
    const std::vector<float> w = dequantize(linear);
    for (const TileOrder& order : kOrders) {
      SCOPED_TRACE(test::text_of(shape) + " interleave " + std::to_string(order.interleave));
      const PlaneTiles tiles(packed, order, 2);
      const PlaneTilesView& view = tiles.view();
      const int64_t stride = view.tiles() * order.tile_rows;
      std::vector<float> columns(static_cast<size_t>(view.cols * stride), NAN);
      kernels::decode_reference(view, 0, view.tiles(), columns.data(), stride);
      ASSERT_TRUE(test::close(transposed(view, columns, stride), w, decoded(linear)));
    }
  }
}

TEST(PlaneTiles, RefusesWhatItCannotRun) {
  RegionFormat shape;
  shape.rows = 4;
  shape.cols = 64;
  EXPECT_EQ(PlaneTiles::unsupported(shape), "");
  shape.offset_kind = OffsetKind::kRegion;
  EXPECT_EQ(PlaneTiles::unsupported(shape), "offsets per region");
  shape.offset_kind = OffsetKind::kBlock;
  EXPECT_EQ(PlaneTiles::unsupported(shape), "");
  shape.nm = {4, 8};
  EXPECT_EQ(PlaneTiles::unsupported(shape), "offsets with an N:M mask");
}

// Sets one Highway target after the other, and the best again at the end.
class EveryTarget : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { kernels::force_target(GetParam()); }
  void TearDown() override { kernels::force_target(0); }
};

std::vector<int64_t> targets() {
  std::vector<int64_t> result;
  for (int64_t left = kernels::supported_targets(); left != 0; left &= left - 1) {
    result.push_back(left & -left);
  }
  return result;
}

// How far gemv() may be from W x by rounding its tables (gemv.h), per row.
std::vector<double> error_bound(const PlaneTilesView& view, const kernels::GemvInput& input) {
  std::vector<double> bound(static_cast<size_t>(view.rows), 0.0);
  for (int g = 0; g < view.group_count; ++g) {
    const kernels::PlaneGroup& group = view.groups[g];
    for (int s = group.first_segment; s < group.first_segment + group.segments; ++s) {
      const kernels::PlaneSegment& segment = view.segments[s];
      for (int64_t row = 0; row < view.rows; ++row) {
        const int64_t tile = row / view.order.tile_rows, lane = row % view.order.tile_rows;
        float level[kernels::kMaxPlanes], c[kernels::kMaxPlanes];
        for (int i = 0; i < segment.levels; ++i) {
          const int64_t at =
              (tile * view.level_rows + segment.level_row + i) * view.order.tile_rows + lane;
          level[i] = view.level_kind == kernels::LevelKind::kLog8
                         ? log8_decode(view.codes[at], view.base)
                         : view.levels[at];
        }
        kernels::plane_coefficients(view.level_kind, view.pruned, group.planes, level, c);
        double sum = 0;
        for (int p = 0; p < group.planes; ++p) sum += std::fabs(c[p]);
        bound[static_cast<size_t>(row)] += sum * segment.octets * input.scale()[s];
      }
    }
  }
  return bound;
}

TEST_P(EveryTarget, GemvWithinTheBoundOfItsTables) {
  for (const RegionFormat& shape : all_shapes(2)) {
    SCOPED_TRACE(test::text_of(shape));
    const RegionCodes linear = test::random_codes(shape, 2);
    const PackedPlanes packed = pack(linear);
    const std::vector<float> w = dequantize(linear);
    const PlaneTiles tiles(packed, kernels::cpu_tile_order(), 2);
    const PlaneTilesView& view = tiles.view();
    kernels::GemvInput inputs[kernels::kMaxGemvTokens];
    std::vector<float> x[kernels::kMaxGemvTokens];
    for (int t = 0; t < kernels::kMaxGemvTokens; ++t) {
      x[t] = test::random_normal(shape.cols, static_cast<uint32_t>(10 + t));
      inputs[t].prepare(view, x[t].data());
    }
    for (int tokens = 1; tokens <= kernels::kMaxGemvTokens; ++tokens) {
      std::vector<float> y(static_cast<size_t>(tokens * shape.rows), NAN);
      kernels::gemv(view, inputs, tokens, 0, view.tiles(), y.data(), shape.rows);
      double square = 0, condition = 0;
      for (int t = 0; t < tokens; ++t) {
        const std::vector<double> bound = error_bound(view, inputs[t]);
        for (int64_t row = 0; row < shape.rows; ++row) {
          double expected = 0, size = 0;
          for (int64_t col = 0; col < shape.cols; ++col) {
            const double term = double{w[static_cast<size_t>(row * shape.cols + col)]} *
                                x[t][static_cast<size_t>(col)];
            expected += term;
            size += std::fabs(term);
            condition += term * term;
          }
          const double error = y[static_cast<size_t>(t * shape.rows + row)] - expected;
          square += error * error;
          ASSERT_LE(std::fabs(error), bound[static_cast<size_t>(row)] + 1e-5 * size)
              << "token " << t << " of " << tokens << " row " << row;
        }
      }
      // Far below the worst case: about 1 % of a sum of independent terms, more for few columns.
      ASSERT_LE(square, (shape.cols < 64 ? 2e-3 : 5e-4) * condition + 1e-12);
    }
  }
}

TEST_P(EveryTarget, DecodesTilesAsTheReference) {
  for (const RegionFormat& shape : all_shapes(3)) {
    SCOPED_TRACE(test::text_of(shape));
    const RegionCodes linear = test::random_codes(shape, 5);
    const PlaneTiles tiles(pack(linear), kernels::cpu_tile_order(), 1);
    const PlaneTilesView& view = tiles.view();
    const int64_t rows = view.tiles() * view.order.tile_rows, stride = rows + 3;
    std::vector<float> actual(static_cast<size_t>(view.cols * stride), NAN);
    kernels::decode_tiles(view, 0, view.tiles(), actual.data(), stride);
    ASSERT_TRUE(test::close(transposed(view, actual, stride), dequantize(linear), decoded(linear)));
  }
}

TEST_P(EveryTarget, GemvOfSomeTilesIsThatOfAll) {
  RegionFormat shape;
  shape.rows = 200;
  shape.cols = 300;
  const PlaneTiles tiles(pack(test::random_codes(shape, 3)), kernels::cpu_tile_order(), 1);
  const PlaneTilesView& view = tiles.view();
  const std::vector<float> x = test::random_normal(shape.cols, 4);
  kernels::GemvInput input;
  input.prepare(view, x.data());
  std::vector<float> all(200, NAN), parts(200, NAN);
  kernels::gemv(view, &input, 1, 0, view.tiles(), all.data(), 200);
  for (int64_t tile = view.tiles() - 1; tile >= 0; --tile) {
    kernels::gemv(view, &input, 1, tile, 1, parts.data(), 200);
  }
  EXPECT_TRUE(test::close(parts, all));
}

INSTANTIATE_TEST_SUITE_P(Highway, EveryTarget, testing::ValuesIn(targets()),
                         [](const auto& info) { return "Target" + std::to_string(info.param); });

}  // namespace
}  // namespace billm
