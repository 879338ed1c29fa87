// Rotation: a seeded orthogonal matrix, a factor of a layer that stores nothing but its seed.
// Weights that were rotated look alike in every row and column, which few levels code with less
// error (QuIP#, arXiv 2402.04396, section 3: incoherence). docs/format.md, "Rotation", defines
// every bit of it.
//
//   R = (C (x) H) diag(s) * 2^(-k/2),  size = odd * 2^k
//
// s: seeded signs; H: the Hadamard matrix of 2^k in Sylvester's order; C: the orthonormal DCT-II of
// the odd part; element i of a vector has the index i / 2^k of C and i % 2^k of H. R is never
// materialized: H costs k additions an element, C `odd` multiplications.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace billm {

struct Rotation {
  int64_t size = 0;         // of the vectors, 1..2^24, with an odd part of at most kMaxOddPart
  uint32_t seed = 0;        // of the signs
  bool transposed = false;  // R' = R^-1 instead of R
  bool operator==(const Rotation&) const = default;
};

// A DCT of odd size costs `odd` multiplications an element and odd^2 constants: past this a
// rotation would cost more than the product of a small layer. No published model comes near
// (largest known: 231, of 29568 = 128 * 231).
inline constexpr int64_t kMaxOddPart = 1023;

// Throws Error{kBadInput} unless the size can be rotated (`where` starts the message).
void check_rotation(const Rotation& rotation, const std::string& where);

// What applying a rotation needs, for the reference below and for the kernels.
struct RotationTables {
  Rotation rotation;
  int64_t odd = 0, power = 0;   // size = odd * power, power = 2^k
  double scale = 0;             // 2^(-k/2), rounded to double
  std::vector<uint64_t> signs;  // [ceil(size / 64)]: bit i % 64 of word i / 64 is 1 where s_i = +1
  std::vector<double> dct;      // C [odd, odd]: the doubles nearest to the exact values
};
RotationTables make_rotation_tables(const Rotation& rotation);

// The reference, in double: vectors[v * stride + i] of v < count becomes R (or R') times it. The
// same doubles on every machine: no fused multiply-add, every sum in the order that format.md
// states.
void rotate(const RotationTables& tables, double* vectors, int64_t count, int64_t stride);
void rotate(const Rotation& rotation, double* vectors, int64_t count, int64_t stride);

}  // namespace billm
