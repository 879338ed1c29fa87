// LayerCodes: a quantized linear layer as a product of factors, W = F0 F1 ... Fk, outermost first.
// Most methods make one factor. See docs/format.md ("Products") and docs/decisions/0015-factors.md.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "billm/codes/region_codes.h"
#include "billm/codes/rotation.h"
#include "billm/codes/trellis.h"

namespace billm {

// The kinds of factors, closed: what is to be known of a kind stands in one row of a table of each
// folder (codes, pack, model, learn, and tools/read_packed.py), in this order.
using Factor = std::variant<RegionCodes, Rotation, TrellisCodes>;
inline constexpr size_t kFactorKinds = std::variant_size_v<Factor>;
// The kinds' names by their index in Factor, as files say them: "planes", "rotation", "trellis".
std::span<const char* const> factor_kind_names();

struct LayerCodes {
  LayerCodes() = default;
  LayerCodes(RegionCodes codes) { factors.emplace_back(std::move(codes)); }   // NOLINT: one factor
  LayerCodes(TrellisCodes codes) { factors.emplace_back(std::move(codes)); }  // NOLINT

  std::vector<Factor> factors;

  int64_t rows() const;
  int64_t cols() const;
  // The factor of region codes where there is just one (beside rotations), else null.
  const RegionCodes* only_regions() const;
  // The same; throws Error{kFailure} instead of null.
  const RegionCodes& regions() const;
  RegionCodes& regions();
};

// Shape of a factor.
int64_t factor_rows(const Factor& factor);
int64_t factor_cols(const Factor& factor);

// A factor as the product takes it: a matrix [rows, cols] in fp32, or a rotation.
struct DecodedFactor {
  int64_t rows = 0, cols = 0;
  std::vector<float> matrix;  // empty: the rotation
  Rotation rotation;
};
// W [rows, cols], fp32: the definition of every decoder in billm. One matrix: itself. Else in
// double in the order of docs/format.md ("Products"), rounded once; the result does not depend on
// threads.
std::vector<float> multiply_factors(std::vector<DecodedFactor> factors, int threads);

std::vector<float> dequantize(const LayerCodes& codes, int threads = 1);

// Throws Error{kFailure} naming the first violation: check_codes() of each factor, shapes that do
// not fit each other, a product without a matrix.
void check_codes(const LayerCodes& codes, int threads = 1);

// What is wrong with the factors of a layer as such, whose shapes are `sizes` and of which some are
// rotations; empty if nothing is.
struct FactorSize {
  int64_t rows = 0, cols = 0;
  bool rotation = false;
};
inline constexpr size_t kMostFactors = 8;
std::string factors_problem(std::span<const FactorSize> sizes);

}  // namespace billm
