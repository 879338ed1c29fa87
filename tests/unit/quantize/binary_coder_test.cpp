// The engine with settings that no method of the table has yet: one class in ordinary columns.
#include "src/quantize/binary_coder.h"

#include <gtest/gtest.h>

#include "billm/pack/packed_layer.h"
#include "support/compare.h"
#include "support/random_layer.h"

namespace billm::test {
namespace {

// More classes in salient columns: smaller error, a consistent layer that packs and decodes.
TEST(BinaryCoder, OneClassAndClassesOfSalientColumns) {
  constexpr int64_t kRows = 70, kCols = 200;
  const std::vector<float> w = random_normal(kRows * kCols, 1, 0.05f);
  const Hessian hessian = make_hessian(correlated_stats(kCols, 500, 2), true, 0.01, 1);
  MethodConfig config;
  double last = INFINITY;
  for (int salient = 0; salient <= 3; ++salient) {
    SCOPED_TRACE(salient);
    BinaryPlan plan;
    plan.shape.rows = kRows;
    plan.shape.cols = kCols;
    plan.shape.classes = 1;
    plan.shape.salient_classes = salient;
    for (int64_t col = 0; salient > 0 && col < kCols; ++col) {
      plan.salient.push_back(col % 5 == 0);
    }
    const RegionCodes linear = code_binary({w.data(), kRows, kCols}, hessian, plan, config, {});
    ASSERT_NO_THROW(check_codes(linear));
    for (int64_t i = 0; i < kRows * kCols; ++i) {
      const bool in_salient = salient > 0 && i % kCols % 5 == 0;
      ASSERT_EQ(linear.region[static_cast<size_t>(i)] > 1, in_salient);
    }
    const PackedLayer packed = pack(linear);
    std::vector<float> decoded(w.size());
    decode(packed, 1, decoded.data());
    EXPECT_TRUE(close(decoded, dequantize(linear)));
    const double error = layer_error(w, decoded, hessian.matrix, hessian.lambda, kCols);
    EXPECT_LT(error, last);
    last = error;
    // 1 sign, a class digit in a fifth of the columns (base 3: 8/5 bits), scales, the columns.
    const double digits = salient == 2 ? 0.2 : salient == 3 ? 0.2 * 8 / 5 : 0.0;
    const double scales = 8.0 * 2 * (1 + salient) / kCols;
    EXPECT_NEAR(packed.stored_bits(), 1 + digits + scales, 0.03);
  }
}

}  // namespace
}  // namespace billm::test
