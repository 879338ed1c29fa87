// Rotations in double: see include/billm/codes/rotation.h and docs/format.md, "Rotation".
#include "billm/codes/rotation.h"

#include <algorithm>
#include <cmath>

#include "billm/base/error.h"

namespace billm {
namespace {

// ---- Constants of the DCT
//
// Computed as sums of two doubles (about 104 bits), so that the double nearest to the exact value
// comes out whatever the C library's cosine does. std::fma is exact by definition, in software too.

struct Twofold {
  double high, low;  // high + low, high the nearest double to the sum
};

Twofold two_sum(double a, double b) {
  const double sum = a + b, part = sum - a;
  return {sum, (a - (sum - part)) + (b - part)};
}

Twofold normalize(double high, double low) {  // |low| <= |high|
  const double sum = high + low;
  return {sum, low - (sum - high)};
}

Twofold add(Twofold a, Twofold b) {
  const Twofold sum = two_sum(a.high, b.high);
  return normalize(sum.high, sum.low + (a.low + b.low));
}

Twofold multiply(Twofold a, Twofold b) {
  const double product = a.high * b.high;
  const double rest = std::fma(a.high, b.high, -product);
  return normalize(product, rest + (a.high * b.low + a.low * b.high));
}

Twofold divide(Twofold a, double b) {
  const double quotient = a.high / b;
  return normalize(quotient, (std::fma(-quotient, b, a.high) + a.low) / b);
}

Twofold square_root(Twofold a) {
  const double root = std::sqrt(a.high);
  return normalize(root, (std::fma(-root, root, a.high) + a.low) / (2 * root));
}

constexpr Twofold kPi = {0x1.921fb54442d18p+1, 0x1.1a62633145c07p-53};

// cos(x) or sin(x) of 0 <= x <= pi/4 by Taylor's series: x^28/28! is below 2^-106.
Twofold series(Twofold x, bool sine) {
  const Twofold square = multiply(x, {-x.high, -x.low});
  Twofold term = sine ? x : Twofold{1, 0};
  Twofold sum = term;
  for (int i = sine ? 2 : 1; i <= 28; i += 2) {
    term = divide(multiply(term, square), static_cast<double>(i * (i + 1)));
    sum = add(sum, term);
  }
  return sum;
}

// cos(pi a / (2 odd)) of any a >= 0, reduced in integers.
Twofold cosine(int64_t a, int64_t odd) {
  a %= 4 * odd;
  if (a > 2 * odd) a = 4 * odd - a;
  const bool negative = a > odd;
  if (negative) a = 2 * odd - a;
  const bool sine = 2 * a > odd;  // the smaller angle is the more exact
  const auto steps = static_cast<double>(sine ? odd - a : a);
  const Twofold x = divide(multiply(kPi, {steps, 0}), static_cast<double>(2 * odd));
  const Twofold value = series(x, sine);
  return negative ? Twofold{-value.high, -value.low} : value;
}

// C[u][v] = sqrt(2 / odd) cos(pi (2v + 1) u / (2 odd)); row 0 is sqrt(1 / odd).
std::vector<double> make_dct(int64_t odd) {
  const auto size = static_cast<size_t>(odd);
  const Twofold first = square_root(divide({1, 0}, static_cast<double>(odd)));
  const Twofold other = square_root(divide({2, 0}, static_cast<double>(odd)));
  std::vector<double> values(4 * size);  // by a = (2v + 1) u mod 4 odd
  for (size_t a = 0; a < values.size(); ++a) {
    values[a] = multiply(other, cosine(static_cast<int64_t>(a), odd)).high;
  }
  std::vector<double> dct(size * size, first.high);
  for (size_t u = 1; u < size; ++u) {
    for (size_t v = 0; v < size; ++v) dct[u * size + v] = values[(2 * v + 1) * u % (4 * size)];
  }
  return dct;
}

// ---- Signs

// Word j of the generator splitmix64 that starts at `seed`.
uint64_t splitmix64(uint64_t seed, uint64_t j) {
  uint64_t z = seed + (j + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

void apply_signs(const RotationTables& tables, double* x) {
  for (int64_t i = 0; i < tables.rotation.size; ++i) {
    if ((tables.signs[static_cast<size_t>(i / 64)] >> (i % 64) & 1) == 0) x[i] = -x[i];
  }
}

// ---- The orthogonal part

// H (unscaled) along i % power: (a, b) -> (a + b, a - b) at the distances 1, 2, 4, ...
void butterflies(double* x, int64_t size, int64_t power) {
  for (int64_t distance = 1; distance < power; distance *= 2) {
    for (int64_t from = 0; from < size; from += 2 * distance) {
      double* low = x + from;
      double* high = low + distance;
      for (int64_t i = 0; i < distance; ++i) {
        const double a = low[i], b = high[i];
        low[i] = a + b;
        high[i] = a - b;
      }
    }
  }
}

// C (or C') along i / power: sums of products in ascending order of the index summed over.
void transform_odd(const RotationTables& tables, double* x, std::vector<double>& sums) {
  const int64_t odd = tables.odd, power = tables.power;
  if (odd == 1) return;  // C = [1]
  sums.resize(static_cast<size_t>(tables.rotation.size));
  const int64_t to = tables.rotation.transposed ? 1 : odd;    // from one output to the next
  const int64_t from = tables.rotation.transposed ? odd : 1;  // from one input to the next
  for (int64_t u = 0; u < odd; ++u) {
    const double* constants = tables.dct.data() + u * to;
    double* sum = sums.data() + u * power;
    for (int64_t i = 0; i < power; ++i) sum[i] = constants[0] * x[i];
    for (int64_t v = 1; v < odd; ++v) {
      const double constant = constants[v * from];
      const double* input = x + v * power;
      for (int64_t i = 0; i < power; ++i) sum[i] += constant * input[i];
    }
  }
  std::copy(sums.begin(), sums.end(), x);
}

}  // namespace

void check_rotation(const Rotation& rotation, const std::string& where) {
  constexpr int64_t kMaxSize = int64_t{1} << 24;
  if (rotation.size < 1 || rotation.size > kMaxSize) {
    throw bad_input(where + ": expected the size of a rotation in 1..2^24, got " +
                    std::to_string(rotation.size));
  }
  int64_t odd = rotation.size;
  while (odd % 2 == 0) odd /= 2;
  if (odd > kMaxOddPart) {
    throw bad_input(where + ": a rotation of size " + std::to_string(rotation.size) +
                    " would need a DCT of its odd part " + std::to_string(odd) +
                    "; expected an odd part of at most " + std::to_string(kMaxOddPart));
  }
}

RotationTables make_rotation_tables(const Rotation& rotation) {
  check_rotation(rotation, "rotation");
  RotationTables tables;
  tables.rotation = rotation;
  tables.odd = rotation.size;
  int k = 0;
  for (; tables.odd % 2 == 0; ++k) tables.odd /= 2;
  tables.power = int64_t{1} << k;
  tables.scale = std::ldexp(k % 2 == 0 ? 1.0 : 0x1.6a09e667f3bcdp-1, -(k / 2));  // sqrt(1/2)
  tables.signs.resize(static_cast<size_t>((rotation.size + 63) / 64));
  for (size_t j = 0; j < tables.signs.size(); ++j) tables.signs[j] = splitmix64(rotation.seed, j);
  tables.dct = make_dct(tables.odd);
  return tables;
}

void rotate(const RotationTables& tables, double* vectors, int64_t count, int64_t stride) {
  std::vector<double> sums;
  for (int64_t v = 0; v < count; ++v) {
    double* x = vectors + v * stride;
    if (!tables.rotation.transposed) apply_signs(tables, x);
    butterflies(x, tables.rotation.size, tables.power);
    transform_odd(tables, x, sums);
    for (int64_t i = 0; i < tables.rotation.size; ++i) x[i] *= tables.scale;
    if (tables.rotation.transposed) apply_signs(tables, x);
  }
}

void rotate(const Rotation& rotation, double* vectors, int64_t count, int64_t stride) {
  rotate(make_rotation_tables(rotation), vectors, count, stride);
}

}  // namespace billm
