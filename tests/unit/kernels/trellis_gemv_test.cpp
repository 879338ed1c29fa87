// Products with trellis layers: tiles against the format's bits, the same floats on every target,
// and the weights themselves.
#include "kernels/cpu/trellis_gemv.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "support/compare.h"
#include "unit/kernels/tile_testing.h"
#include "unit/kernels/trellis_testing.h"

namespace billm::kernels {
namespace {

// A layer of random bits, and what docs/format.md says of it bit by bit.
class TestLayer {
 public:
  struct Plane {
    int k;
    float gain;
  };
  TestLayer(int64_t rows, int64_t cols, std::vector<Plane> planes, uint32_t seed)
      : entries(seed), table(entries.entry), rows(rows), cols(cols), planes(std::move(planes)) {
    test::Random random(seed + 1);
    std::vector<TrellisPlaneSource> sources;
    for (const Plane& plane : this->planes) {
      const int64_t bytes = (cols + 3) / 4 * trellis_group_bytes(rows, plane.k);
      std::vector<uint8_t>& stream = streams.emplace_back(static_cast<size_t>(bytes));
      for (uint8_t& byte : stream) byte = static_cast<uint8_t>(random.below(256));
      sources.push_back({plane.k, plane.gain, stream.data()});
    }
    for (int64_t r = 0; r < rows; ++r) scale.push_back(0.01f * (0.5f + random.uniform()));
    tiles = std::make_unique<TrellisTiles>(rows, cols, table, sources, scale.data());
  }

  int state(size_t plane, int64_t row, int64_t group) const {
    const int k = planes[plane].k;
    const int64_t count = (rows + 511) / 512,
                  in_segment = 64 * ((rows + 64 * count - 1) / (64 * count));
    const int64_t bit = row / in_segment * (in_segment * k + 8 - k) + row % in_segment * k;
    const uint8_t* stream = streams[plane].data() + group * trellis_group_bytes(rows, k);
    int result = 0;
    for (int64_t i = bit; i < bit + 8; ++i)
      result = 2 * result + (stream[i / 8] >> (7 - i % 8) & 1);
    return result;
  }
  double weight(int64_t row, int64_t col) const {
    double sum = 0;
    for (size_t p = 0; p < planes.size(); ++p) {
      sum += double{planes[p].gain} * entries.entry[state(p, row, col / 4)][col % 4];
    }
    return sum * scale[static_cast<size_t>(row)];
  }
  const TrellisTilesView& view() const { return tiles->view(); }

  TestTable entries;
  TrellisTable table;
  int64_t rows, cols;
  std::vector<Plane> planes;
  std::vector<std::vector<uint8_t>> streams;
  std::vector<float> scale;
  std::unique_ptr<TrellisTiles> tiles;
};

template <typename Body>
void for_layers(Body&& body) {
  uint32_t seed = 1;
  const std::vector<std::vector<TestLayer::Plane>> kinds = {{{4, 1}},
                                                            {{3, 1}},
                                                            {{2, 1}},
                                                            {{1, 1}},
                                                            {{4, 128}, {2, 70}},
                                                            {{4, 256}, {4, 75}, {1, 30}, {3, 9}}};
  for (const auto& planes : kinds) {
    for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 1},
                                     {63, 130},
                                     {64, 128},
                                     {65, 7},
                                     {330, 260},
                                     {576, 37},
                                     {1100, 64}}) {
      SCOPED_TRACE(testing::Message() << rows << " x " << cols << ", " << planes.size()
                                      << " planes, K " << planes[0].k);
      body(TestLayer(rows, cols, planes, ++seed));
    }
  }
}

TEST(TrellisTiles, SegmentsOfRows) {
  EXPECT_EQ(trellis_segment_rows(1), 64);
  EXPECT_EQ(trellis_segment_rows(512), 512);
  EXPECT_EQ(trellis_segment_rows(576), 320);
  EXPECT_EQ(trellis_segment_rows(4096), 512);
  EXPECT_EQ(trellis_segment_rows(1100), 384);
  EXPECT_EQ(trellis_group_bytes(576, 4), (2 * 4 + 576 * 4) / 8);
  EXPECT_EQ(trellis_group_bytes(65, 3), (5 + 65 * 3 + 7) / 8);
  for (int64_t rows = 1; rows < 9000; rows += 61) {  // no segment is empty
    EXPECT_LT(((rows + 511) / 512 - 1) * trellis_segment_rows(rows), rows) << rows;
    EXPECT_GE((rows + 511) / 512 * trellis_segment_rows(rows), rows) << rows;
  }
}

TEST(TrellisTiles, HaveTheStatesOfTheFormat) {
  for_layers([](const TestLayer& layer) {
    const TrellisTilesView& view = layer.view();
    for (int p = 0; p < view.plane_count; ++p) {
      const TrellisTilesView::Plane& plane = view.planes[p];
      for (int64_t row = 0; row < layer.rows; ++row) {
        for (int64_t g = 0; g < view.groups; ++g) {
          const uint8_t* bytes = plane.bytes + row / 64 * view.tile_bytes(plane.k) +
                                 g * TrellisTilesView::group_bytes(plane.k);
          ASSERT_EQ(trellis_state(bytes, plane.k, static_cast<int>(row % 64)),
                    layer.state(static_cast<size_t>(p), row, g))
              << "plane " << p << " row " << row << " group " << g;
        }
      }
    }
  });
}

TEST(TrellisGemv, TablesOfEveryTargetAreTheReference) {
  const TestTable entries(3);
  const TrellisTable table(entries.entry);
  constexpr int64_t kCols = kTrellisChunk * kTrellisColumns;
  for (int variant = 0; variant < 7; ++variant) {
    std::vector<float> x = test::random_normal(kCols, 4);
    if (variant == 1) x[77] = 1000;
    if (variant == 2) x.assign(x.size(), 0.0f);
    if (variant == 3) x[5] = NAN;
    if (variant == 4) x[127] = -INFINITY;
    if (variant == 5) x[9] = 3e38f;
    if (variant == 6) {
      for (float& value : x) value *= 1e-34f;
    }
    std::vector<int16_t> expected(kTrellisChunk * kTrellisStates);
    float step = 0;
    trellis_chunk_reference(table, x.data(), expected.data(), &step);
    for_every_target([&](int64_t target) {
      TrellisInput input;
      input.prepare(table, kCols, x.data());
      for (int i = 0; i < kTrellisChunk * kTrellisStates; ++i) {
        ASSERT_EQ(input.entry(i / kTrellisStates, i % kTrellisStates),
                  expected[static_cast<size_t>(i)])
            << "variant " << variant << " target " << target << " entry " << i;
      }
      EXPECT_EQ(std::memcmp(input.step(), &step, sizeof(step)), 0) << target;
    });
  }
}

TEST(TrellisGemv, IsTheReferenceOnEveryTarget) {
  for_layers([](const TestLayer& layer) {
    const TrellisTilesView& view = layer.view();
    TrellisInput inputs[kMaxTrellisTokens];
    const auto prepare = [&] {
      for (int t = 0; t < kMaxTrellisTokens; ++t) {
        const auto x = test::random_normal(layer.cols, static_cast<uint32_t>(20 + t));
        inputs[t].prepare(layer.table, layer.cols, x.data());
      }
    };
    prepare();
    const int64_t stride = layer.rows + 3;
    std::vector<float> expected(static_cast<size_t>(kMaxTrellisTokens * stride), 77.0f);
    trellis_gemv_reference(view, inputs, kMaxTrellisTokens, 0, view.tiles, expected.data(), stride);
    for_every_target([&](int64_t target) {
      prepare();  // tables are as the target wants them
      std::vector<float> y(expected.size(), 77.0f), parts = y;
      trellis_gemv(view, inputs, kMaxTrellisTokens, 0, view.tiles, y.data(), stride);
      EXPECT_EQ(std::memcmp(y.data(), expected.data(), y.size() * sizeof(float)), 0) << target;
      // As threads and fewer tokens would share it out.
      for (int64_t tile = view.tiles - 1; tile >= 0; --tile) {
        for (int t = 0; t < kMaxTrellisTokens; t += 3) {
          trellis_gemv(view, inputs + t, std::min(3, kMaxTrellisTokens - t), tile, 1,
                       parts.data() + t * stride, stride);
        }
      }
      EXPECT_EQ(std::memcmp(parts.data(), expected.data(), y.size() * sizeof(float)), 0) << target;
    });
  });
}

TEST(TrellisGemv, WithinTheBoundOfItsTables) {
  for_layers([](const TestLayer& layer) {
    const TrellisTilesView& view = layer.view();
    const std::vector<float> x = test::random_normal(layer.cols, 30);
    TrellisInput input;
    input.prepare(layer.table, layer.cols, x.data());
    std::vector<float> y(static_cast<size_t>(layer.rows));
    trellis_gemv(view, &input, 1, 0, view.tiles, y.data(), layer.rows);
    double gains = 0, square = 0, condition = 0;
    for (const TestLayer::Plane& plane : layer.planes) gains += plane.gain;
    for (int64_t row = 0; row < layer.rows; ++row) {
      double expected = 0, bound = 0, size = 0;
      for (int64_t c = 0; c < layer.cols; ++c) {
        const double term = layer.weight(row, c) * x[static_cast<size_t>(c)];
        expected += term;
        size += std::fabs(term);
        condition += term * term;
      }
      for (int64_t g = 0; g < view.groups; ++g) bound += 1.5 * input.step()[g / kTrellisChunk];
      const double error = y[static_cast<size_t>(row)] - expected;
      square += error * error;
      ASSERT_LE(std::fabs(error),
                bound * gains * layer.scale[static_cast<size_t>(row)] + 1e-5 * size);
    }
    // Of a sum of independent terms; measured 0.25 to 0.31 %.
    if (layer.rows * layer.cols > 1000) {
      EXPECT_LE(std::sqrt(square / condition), 4e-3);
    }
  });
}

TEST(TrellisGemv, PassesOnWhatIsNotFinite) {
  const TestLayer layer(100, 300, {{4, 1}}, 5);
  for (const float value : {NAN, INFINITY, -INFINITY}) {
    std::vector<float> x = test::random_normal(300, 6), y(100);
    x[299] = value;
    TrellisInput input;
    input.prepare(layer.table, 300, x.data());
    trellis_gemv(layer.view(), &input, 1, 0, 2, y.data(), 100);
    for (const float each : y) EXPECT_TRUE(std::isnan(each));
  }
}

TEST(TrellisGemv, DecodesTheWeights) {
  for_layers([](const TestLayer& layer) {
    const TrellisTilesView& view = layer.view();
    const int64_t rows = view.tiles * 64, stride = rows + 5;
    std::vector<float> expected(static_cast<size_t>(layer.cols * stride), 77.0f);
    trellis_decode_reference(view, 0, view.tiles, expected.data(), stride);
    for (int64_t row = 0; row < layer.rows; ++row) {
      for (int64_t c = 0; c < layer.cols; ++c) {
        ASSERT_NEAR(expected[static_cast<size_t>(c * stride + row)], layer.weight(row, c),
                    1e-6 * std::fabs(layer.weight(row, c)) + 1e-9);
      }
    }
    for_every_target([&](int64_t target) {
      std::vector<float> out(expected.size(), 77.0f);
      trellis_decode(view, 0, view.tiles, out.data(), stride);
      EXPECT_EQ(std::memcmp(out.data(), expected.data(), out.size() * sizeof(float)), 0) << target;
      const int64_t tile = view.tiles - 1;
      out.assign(out.size(), 77.0f);
      trellis_decode(view, tile, 1, out.data() + tile * 64, stride);
      for (int64_t c = 0; c < layer.cols; ++c) {
        ASSERT_EQ(std::memcmp(out.data() + c * stride + tile * 64,
                              expected.data() + c * stride + tile * 64, 64 * sizeof(float)),
                  0);
      }
    });
  });
}

}  // namespace
}  // namespace billm::kernels
