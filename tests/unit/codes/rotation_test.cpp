// Rotations: against the dense matrix of the definition, against numpy (tools/read_packed.py) bit
// by bit, and what makes them rotations.
#include "billm/codes/rotation.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <numbers>

#include "billm/base/error.h"
#include "support/environment.h"
#include "support/random_layer.h"

namespace billm {
namespace {

constexpr int64_t kSizes[] = {1, 2, 3, 40, 64, 130, 200, 576, 1536};

// R column by column: [size, size] in the order [column][row].
std::vector<double> matrix_of(const Rotation& rotation) {
  const int64_t n = rotation.size;
  std::vector<double> columns(static_cast<size_t>(n * n), 0.0);
  for (int64_t i = 0; i < n; ++i) columns[static_cast<size_t>(i * n + i)] = 1;
  rotate(rotation, columns.data(), n, n);
  return columns;
}

// The definition, in long double: R[r][c] without the sign of column c.
long double entry(int64_t odd, int64_t power, int64_t r, int64_t c) {
  constexpr long double kPi = std::numbers::pi_v<long double>;
  const int64_t u = r / power, v = c / power;
  const auto q = static_cast<long double>(odd);
  const long double dct =
      u == 0
          ? std::sqrt(1 / q)
          : std::sqrt(2 / q) * std::cos(kPi * static_cast<long double>((2 * v + 1) * u) / (2 * q));
  const bool minus = std::popcount(static_cast<uint64_t>((r % power) & (c % power))) % 2 != 0;
  return (minus ? -dct : dct) / std::sqrt(static_cast<long double>(power));
}

TEST(Rotation, IsTheMatrixOfTheDefinition) {
  for (const int64_t n : kSizes) {
    const Rotation rotation{n, 7, false};
    const std::vector<double> columns = matrix_of(rotation);
    const RotationTables tables = make_rotation_tables(rotation);
    for (int64_t c = 0; c < n; ++c) {
      const double sign = (tables.signs[static_cast<size_t>(c / 64)] >> (c % 64) & 1) != 0 ? 1 : -1;
      for (int64_t r = 0; r < n; ++r) {
        const auto expected = static_cast<double>(sign * entry(tables.odd, tables.power, r, c));
        ASSERT_NEAR(columns[static_cast<size_t>(c * n + r)], expected,
                    4e-16 * std::sqrt(tables.odd))
            << n << ": " << r << ", " << c;
      }
    }
  }
}

TEST(Rotation, IsOrthonormal) {
  for (const int64_t n : kSizes) {
    const std::vector<double> columns = matrix_of({n, 8, false});
    for (int64_t a = 0; a<n; a += n> 300 ? 13 : 1) {
      for (int64_t b = 0; b <= a; ++b) {
        double sum = 0;
        for (int64_t i = 0; i < n; ++i) {
          sum += columns[static_cast<size_t>(a * n + i)] * columns[static_cast<size_t>(b * n + i)];
        }
        ASSERT_NEAR(sum, a == b ? 1.0 : 0.0, 4e-14) << n << ": " << a << ", " << b;
      }
    }
  }
}

TEST(Rotation, TransposedIsTheInverse) {
  for (const int64_t n : {1, 2, 3, 40, 64, 130, 200, 576, 1536, 11008, 1023 * 4}) {
    const std::vector<float> x = test::random_normal(3 * (n + 5), 3);
    std::vector<double> vectors(x.begin(), x.end());
    rotate(Rotation{n, 9, false}, vectors.data(), 3, n + 5);
    if (n > 3) {
      EXPECT_GT(std::fabs(vectors[1] - x[1]), 1e-6);
    }
    rotate(Rotation{n, 9, true}, vectors.data(), 3, n + 5);
    for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(vectors[i], x[i], 2e-14) << n << ": " << i;
    // And the matrices are each other's transposes, to the bit where there is no DCT.
  }
  const std::vector<double> forth = matrix_of({40, 9, false}), back = matrix_of({40, 9, true});
  for (size_t r = 0; r < 40; ++r) {
    for (size_t c = 0; c < 40; ++c) ASSERT_EQ(forth[c * 40 + r], back[r * 40 + c]);
  }
}

TEST(Rotation, LeavesWhatIsBetweenVectorsAlone) {
  std::vector<double> vectors(3 * 50, 1.0);
  rotate(Rotation{40, 1, false}, vectors.data(), 3, 50);
  for (size_t i = 0; i < vectors.size(); ++i) {
    if (i % 50 >= 40) {
      EXPECT_EQ(vectors[i], 1.0) << i;
    }
  }
}

TEST(Rotation, SeedsDiffer) {
  // Words of splitmix64 from the published C program (Vigna, prng.di.unimi.it) for the state 0.
  const RotationTables zero = make_rotation_tables({130, 0, false});
  ASSERT_EQ(zero.signs.size(), 3u);
  EXPECT_EQ(zero.signs[0], 0xe220a8397b1dcdafu);
  EXPECT_EQ(zero.signs[1], 0x6e789e6aa1b965f4u);
  for (uint32_t seed = 1; seed < 40; ++seed) {
    const RotationTables other = make_rotation_tables({130, seed, false});
    int same = 0;
    for (size_t j = 0; j < 2; ++j) same += 64 - std::popcount(zero.signs[j] ^ other.signs[j]);
    EXPECT_GT(same, 35) << seed;  // of 128: 64 expected, deviation 5.7
    EXPECT_LT(same, 93) << seed;
  }
}

TEST(Rotation, Refusals) {
  const auto message = [](const Rotation& rotation) -> std::string {
    try {
      check_rotation(rotation, "q_proj");
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      return error.message();
    }
    return "";
  };
  EXPECT_EQ(message({0, 1, false}), "q_proj: expected the size of a rotation in 1..2^24, got 0");
  EXPECT_EQ(message({(1 << 24) + 1, 1, false}),
            "q_proj: expected the size of a rotation in 1..2^24, got 16777217");
  EXPECT_EQ(
      message({2050, 1, false}),
      "q_proj: a rotation of size 2050 would need a DCT of its odd part 1025; expected an odd "
      "part of at most 1023");
  EXPECT_EQ(message({1 << 24, 1, false}), "");
  EXPECT_EQ(message({1023, ~0u, true}), "");
  EXPECT_THROW(make_rotation_tables({-4, 0, false}), Error);
}

TEST(Rotation, SameDoublesAsNumpy) {
  BILLM_NEED(python, "BILLM_PYTHON");
  const test::TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "rotations";
  std::ofstream file(path, std::ios::binary);
  const auto write = [&](const auto* values, size_t count) {
    file.write(reinterpret_cast<const char*>(values),
               static_cast<std::streamsize>(count * sizeof(*values)));
  };
  int records = 0;
  for (const int64_t n : {1, 2, 3, 5, 40, 64, 130, 200, 576, 1536, 11008, 29568, 1023, 1021 * 2}) {
    for (const bool transposed : {false, true}) {
      const auto seed = static_cast<uint32_t>(n * 0x9e3779b9u);
      const int64_t count = n < 2000 ? 3 : 1;
      const std::vector<float> x = test::random_normal(count * n, static_cast<uint32_t>(n));
      std::vector<double> vectors(x.begin(), x.end());
      const int64_t header[] = {n, seed, transposed ? 1 : 0, count};
      write(header, 4);
      write(vectors.data(), vectors.size());
      rotate(Rotation{n, seed, transposed}, vectors.data(), count, n);
      write(vectors.data(), vectors.size());
      ++records;
    }
  }
  file.close();
  EXPECT_EQ(test::run_python(python, "check_rotation.py", {path.string()}),
            std::to_string(records) + " rotations equal\n");
}

}  // namespace
}  // namespace billm
