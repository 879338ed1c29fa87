// Coding on a trellis: bits, error, weights that are on it, sweeps, row scales.
#include <gtest/gtest.h>

#include <cmath>

#include "billm/base/error.h"
#include "billm/pack/packed_layer.h"
#include "billm/quantize/methods.h"
#include "billm/quantize/row_share.h"
#include "kernels/cpu/trellis_viterbi.h"
#include "support/compare.h"
#include "support/hessian_layer.h"
#include "support/random_layer.h"
#include "support/trellis_path.h"

namespace billm::test {
namespace {

struct Layer : HessianLayer {
  using HessianLayer::HessianLayer;
  LayerCodes quantize(double bits, int sweeps = 1, int threads = 1) const {
    return find_method("trellis").quantize(
        {w.data(), rows, cols}, hessian, configure("trellis", {{"bits", bits}, {"sweeps", sweeps}}),
        {.threads = threads});
  }
};

TEST(TrellisMethod, EveryQuarterOfABit) {
  const Layer layer(128, 96);
  double last = 1;
  for (int quarters = 1; quarters <= 12; ++quarters) {
    const double bits = quarters / 4.0;
    SCOPED_TRACE(bits);
    const LayerCodes codes = layer.quantize(bits);
    EXPECT_EQ(find_method("trellis").nominal_bits(codes), bits);
    const auto planes = static_cast<double>(std::get<TrellisCodes>(codes.factors[0]).states.size());
    // Up to 7 bits a group and plane to start from, and 7 of padding; a scale a row.
    EXPECT_GE(pack(codes).stored_bits(), bits);
    EXPECT_LE(pack(codes).stored_bits(), bits + planes * 14 / (4 * 128) + 16.0 / 96);
    const double error = layer.error(codes);
    EXPECT_LT(error, 0.9 * last);
    last = error;
  }
}

TEST(TrellisMethod, OtherBitsAreRefused) {
  for (const double bits : {0.0, 0.2, 0.3, 1.1, 3.25, -1.0}) {
    EXPECT_THROW(configure("trellis", {{"bits", bits}}), Error) << bits;
  }
}

// Weights of independent inputs, so that nothing is fed back: a path with its scale comes back.
TEST(TrellisMethod, RepresentableWeightsComeBack) {
  constexpr int64_t kRows = 600, kCols = 21;
  CalibrationStats stats = {kCols, 2, std::vector<float>(kCols * kCols, 0.0f)};
  for (int64_t i = 0; i < kCols; ++i) stats.xtx[i * kCols + i] = 1.0f;
  for (int rate = 1; rate <= 4; ++rate) {
    TrellisCodes codes = random_trellis(kRows, kCols, {rate}, 5);
    // The row's own size, so that the first scale is the right one already.
    for (int64_t row = 0; row < kRows; ++row) codes.scale[row] = 0.25f;
    Layer layer(kRows, kCols);
    layer.w = dequantize(codes);
    layer.hessian = make_hessian(stats, true, 0.01, 1);
    EXPECT_LT(layer.error(layer.quantize(rate / 4.0, 8)), 0.2 * std::exp2(-rate / 2.0)) << rate;
  }
}

TEST(TrellisMethod, SweepsHelp) {
  double logs = 0;
  for (uint32_t seed = 1; seed <= 6; ++seed) {
    const Layer layer(70, 100, seed);
    double last = layer.error(layer.quantize(1, 0));
    const double first = last;
    for (const int sweeps : {1, 2, 4}) {
      const double error = layer.error(layer.quantize(1, sweeps));
      EXPECT_LE(error, last) << seed << " " << sweeps;
      last = error;
    }
    logs += std::log(last / first);
  }
  EXPECT_LT(std::exp(logs / 6), 0.95);
}

TEST(TrellisMethod, NoWorseThanSignsOfAsManyBits) {
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{576, 64}, {70, 200}, {192, 130}}) {
    const Layer layer(rows, cols, 7);
    const double trellis = layer.error(layer.quantize(1));
    const Method& rtn = find_method("rtn");
    const double signs = layer.error(rtn.quantize({layer.w.data(), rows, cols}, layer.hessian,
                                                  configure("rtn", {{"bits", 1}}), {}));
    const GivenSettings one_class = {{"classes", 1}};
    const double arb = layer.error(find_method("arb").quantize(
        {layer.w.data(), rows, cols}, layer.hessian, configure("arb", one_class), {}));
    EXPECT_LT(trellis, 0.5 * signs);
    EXPECT_LT(trellis, arb);
  }
}

TEST(TrellisMethod, SameCodesAtAnyThreadCount) {
  const Layer layer(1100, 40);  // three segments
  const LayerCodes one = layer.quantize(1.25);
  for (const int threads : {2, 3, 5}) {
    const LayerCodes other = layer.quantize(1.25, 1, threads);
    EXPECT_EQ(dequantize(one), dequantize(other));
  }
}

// Of several processes each codes its own segments.
class OneSegment : public RowShare {
 public:
  explicit OneSegment(int64_t first) : first_(first) {}
  Tiles own(int64_t tiles) const override { return {first_, first_ < tiles ? 1 : 0}; }
  void complete(int64_t, RegionCodes*) const override {}
  void complete(TrellisCodes*) const override {}

 private:
  int64_t first_;
};

TEST(TrellisMethod, OwnSegmentsOnly) {
  const Layer layer(600, 20);
  const std::vector<float> whole = dequantize(layer.quantize(1, 2));
  for (const int64_t segment : {0, 1, 2}) {  // the last: none
    const OneSegment share(segment);
    const LayerCodes part = find_method("trellis").quantize(
        {layer.w.data(), 600, 20}, layer.hessian, configure("trellis", {}), {.share = &share});
    const std::vector<float> weight = dequantize(part);
    for (int64_t at = 0; at < 600 * 20; ++at) {
      ASSERT_EQ(weight[at], at / 20 / 320 == segment ? whole[at] : 0.0f) << at;
    }
  }
}

TEST(TrellisMethod, AnyScaleOfWeights) {
  const Layer layer(64, 48);
  const double error = layer.error(layer.quantize(1));
  for (const float factor : {0x1p-8f, 0x1p8f, 0x1p16f}) {
    Layer scaled = layer;
    for (float& w : scaled.w) w *= factor;
    EXPECT_NEAR(scaled.error(scaled.quantize(1)), error, 0.05 * error) << factor;
  }
}

// What the integers of the kernel cost against a search in floats.
TEST(TrellisMethod, TheSearchIsNearlyExact) {
  constexpr int64_t kRows = 512;
  const float factor[4][4] = {
      {1, 0.3f, -0.2f, 0}, {0, 0.8f, 0.5f, 0.1f}, {0, 0, 1.2f, -0.4f}, {0, 0, 0, 0.9f}};
  for (int rate = 1; rate <= 4; ++rate) {
    const float unit = std::ldexp(static_cast<float>(trellis_gains({rate})[0]), -kTrellisShift);
    const std::vector<float> x = random_normal(4 * kRows, 3);
    std::vector<float> weight = random_normal(kRows, 4);
    for (float& each : weight) each = 0.5f + each * each;
    const auto cost = [&](const std::vector<uint8_t>& states) {
      double sum = 0;
      for (int64_t row = 0; row < kRows; ++row) {
        for (int j = 0; j < 4; ++j) {
          double moved = 0;
          for (int i = 0; i < 4; ++i) {
            moved += (double{x[row * 4 + i]} - unit * kTrellisTable[states[row]][i]) * factor[i][j];
          }
          sum += weight[row] * moved * moved;
        }
      }
      return sum;
    };
    std::vector<uint8_t> found(kRows), exact(kRows);
    kernels::TrellisScratch scratch;
    kernels::trellis_viterbi(kernels::make_trellis_metric(kTrellisTable, unit, factor), rate,
                             x.data(), weight.data(), kRows, found.data(), &scratch);
    PathScratch memory;
    best_path(make_path_metric(kTrellisTable, unit, factor), rate, x.data(), weight.data(), kRows,
              exact.data(), &memory);
    EXPECT_GE(cost(found), cost(exact) * (1 - 1e-6)) << rate;
    EXPECT_LE(cost(found), cost(exact) * 1.01) << rate;
  }
}

// A row that is far larger than the others is coded as well as they are.
TEST(TrellisMethod, RowsOfUnequalSize) {
  Layer layer(64, 64);
  for (int64_t row = 0; row < 64; ++row) {
    for (int64_t col = 0; col < 64; ++col) {
      layer.w[row * 64 + col] *= std::exp2(static_cast<float>(row % 5) - 2);
    }
  }
  EXPECT_LT(layer.error(layer.quantize(1)), 0.25);
}

}  // namespace
}  // namespace billm::test
