// Rotations in fp32 against the reference in double, and the same floats on every target.
#include "kernels/cpu/rotation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "billm/codes/rotation.h"
#include "unit/kernels/tile_testing.h"

namespace billm::kernels {
namespace {

VectorRotation kernel_of(const Rotation& rotation) {
  const RotationTables tables = make_rotation_tables(rotation);
  return VectorRotation(tables.odd, tables.power, tables.signs.data(), tables.dct.data(),
                        tables.scale, rotation.transposed);
}

constexpr int64_t kSizes[] = {1,   2,   3,   8,   16,   24,   32,   40,   48,    64,        112,
                              130, 200, 256, 576, 1536, 4096, 8192, 9216, 11008, 1023 * 16, 1021};

TEST(VectorRotation, IsTheReferenceOnEveryTarget) {
  for (const int64_t n : kSizes) {
    for (const bool transposed : {false, true}) {
      const Rotation rotation{n, static_cast<uint32_t>(n + 1), transposed};
      const VectorRotation kernel = kernel_of(rotation);
      ASSERT_EQ(kernel.size(), n);
      const int64_t count = 3, x_stride = n + 3, y_stride = n + 1;
      const std::vector<float> x = test::random_normal(count * x_stride, 5);
      std::vector<double> expected(x.begin(), x.end());
      rotate(rotation, expected.data(), count, x_stride);
      std::vector<float> y(static_cast<size_t>(count * y_stride), 77.0f);
      kernel.apply(x.data(), x_stride, count, y.data(), y_stride);
      for (int64_t v = 0; v < count; ++v) {
        double worst = 0, norm = 0;
        for (int64_t i = 0; i < n; ++i) {
          const double e = expected[static_cast<size_t>(v * x_stride + i)];
          const double difference = y[static_cast<size_t>(v * y_stride + i)] - e;
          worst += difference * difference;
          norm += e * e;
        }
        // fp32's half step is 6e-8; measured 4e-8 to 3e-7 (odd parts of a thousand).
        ASSERT_LE(std::sqrt(worst / norm), 1e-6) << n << " transposed " << transposed;
        ASSERT_EQ(y[static_cast<size_t>(v * y_stride + n)], 77.0f) << n;
      }
      for_every_target([&](int64_t target) {
        std::vector<float> other(y.size(), 77.0f);
        kernel.apply(x.data(), x_stride, count, other.data(), y_stride);
        EXPECT_EQ(std::memcmp(other.data(), y.data(), y.size() * sizeof(float)), 0)
            << n << " transposed " << transposed << " target " << target;
        other.assign(x.begin(), x.end());  // in place
        kernel.apply(other.data(), x_stride, 1, other.data(), x_stride);
        EXPECT_EQ(std::memcmp(other.data(), y.data(), static_cast<size_t>(n) * sizeof(float)), 0)
            << n << " in place, target " << target;
      });
    }
  }
}

TEST(VectorRotation, PassesOnWhatIsNotFinite) {
  const VectorRotation kernel = kernel_of({576, 1, false});
  std::vector<float> x(576, 1.0f), y(576);
  x[9] = NAN;
  kernel.apply(x.data(), 576, 1, y.data(), 576);
  for (const float value : y) EXPECT_TRUE(std::isnan(value));
}

}  // namespace
}  // namespace billm::kernels
