// Products of factors: see include/billm/codes/layer_codes.h.
#include "billm/codes/layer_codes.h"

#include <algorithm>
#include <optional>

#include "billm/base/error.h"
#include "billm/base/parallel.h"

namespace billm {
namespace {

constexpr const char* kNames[] = {"planes", "rotation", "trellis"};
static_assert(std::size(kNames) == kFactorKinds);

int64_t rows_of(const RegionCodes& codes) { return codes.shape.rows; }
int64_t cols_of(const RegionCodes& codes) { return codes.shape.cols; }
int64_t rows_of(const Rotation& rotation) { return rotation.size; }
int64_t cols_of(const Rotation& rotation) { return rotation.size; }
int64_t rows_of(const TrellisCodes& codes) { return codes.format.rows; }
int64_t cols_of(const TrellisCodes& codes) { return codes.format.cols; }

[[noreturn]] void broken(const std::string& what) {
  throw Error(ErrorCode::kFailure, "quantized layer is inconsistent: " + what);
}

constexpr int64_t kLeastInner = 64;  // that is allowed in a layer of any size
constexpr int64_t kRowsAtOnce = 16;
constexpr int64_t kTileRows = 4, kTileCols = 8;  // twice as fast as whole rows (SSE2)

// A tile of a [.., inner] times b [inner, cols], both from its first row or column on: every
// element is the sum over the inner index in ascending order, starting with its first term, each
// product and each sum rounded to double.
template <int64_t kRows, int64_t kCols>
void multiply_tile(const double* a, const float* b, int64_t inner, int64_t cols, double* to) {
  double sum[kRows][kCols];
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t col = 0; col < kCols; ++col) {
      sum[row][col] = a[row * inner] * static_cast<double>(b[col]);
    }
  }
  for (int64_t i = 1; i < inner; ++i) {
    double from[kCols];
    for (int64_t col = 0; col < kCols; ++col) from[col] = static_cast<double>(b[i * cols + col]);
    for (int64_t row = 0; row < kRows; ++row) {
      const double factor = a[row * inner + i];
      for (int64_t col = 0; col < kCols; ++col) sum[row][col] += factor * from[col];
    }
  }
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t col = 0; col < kCols; ++col) to[row * cols + col] = sum[row][col];
  }
}

// [rows, inner] times [inner, cols], in double.
std::vector<double> multiply(const std::vector<double>& a, const std::vector<float>& b,
                             int64_t rows, int64_t inner, int64_t cols, int threads) {
  std::vector<double> result(static_cast<size_t>(rows * cols));
  parallel_parts(rows, kRowsAtOnce, threads, [&](int64_t first, int64_t end) {
    const auto tile = [&]<int64_t kRows, int64_t kCols>(int64_t row, int64_t col) {
      multiply_tile<kRows, kCols>(a.data() + row * inner, b.data() + col, inner, cols,
                                  result.data() + row * cols + col);
    };
    // Columns outside, so that those of b stay in the cache for all rows of the part.
    for (int64_t col = 0; col < cols;) {
      const bool whole = col + kTileCols <= cols;
      for (int64_t row = first; row < end;) {
        if (whole && row + kTileRows <= end) {
          tile.template operator()<kTileRows, kTileCols>(row, col);
          row += kTileRows;
        } else {
          for (int64_t c = col; c < (whole ? col + kTileCols : cols); ++c) {
            tile.template operator()<1, 1>(row, c);
          }
          ++row;
        }
      }
      col += whole ? kTileCols : cols - col;
    }
  });
  return result;
}

// Each row of `matrix` [rows, size] becomes what the rotation makes of it.
void rotate_rows(const Rotation& rotation, std::vector<double>* matrix, int64_t rows, int threads) {
  const RotationTables tables = make_rotation_tables(rotation);
  parallel_parts(rows, kRowsAtOnce, threads, [&](int64_t first, int64_t end) {
    rotate(tables, matrix->data() + first * rotation.size, end - first, rotation.size);
  });
}

std::vector<double> transposed(const std::vector<double>& matrix, int64_t rows, int64_t cols) {
  std::vector<double> result(matrix.size());
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t col = 0; col < cols; ++col) result[col * rows + row] = matrix[row * cols + col];
  }
  return result;
}

DecodedFactor decode(const RegionCodes& codes, int) {
  return {codes.shape.rows, codes.shape.cols, dequantize(codes), {}};
}
DecodedFactor decode(const Rotation& rotation, int) {
  return {rotation.size, rotation.size, {}, rotation};
}
DecodedFactor decode(const TrellisCodes& codes, int threads) {
  return {codes.format.rows, codes.format.cols, dequantize(codes, threads), {}};
}

void check(const RegionCodes& codes, int threads) { check_codes(codes, threads); }
void check(const Rotation& rotation, int) { check_rotation(rotation, "quantized layer"); }
void check(const TrellisCodes& codes, int threads) { check_codes(codes, threads); }

}  // namespace

std::span<const char* const> factor_kind_names() { return kNames; }

int64_t factor_rows(const Factor& factor) {
  return std::visit([](const auto& kind) { return rows_of(kind); }, factor);
}
int64_t factor_cols(const Factor& factor) {
  return std::visit([](const auto& kind) { return cols_of(kind); }, factor);
}

int64_t LayerCodes::rows() const { return factor_rows(factors.front()); }
int64_t LayerCodes::cols() const { return factor_cols(factors.back()); }

const RegionCodes* LayerCodes::only_regions() const {
  const RegionCodes* only = nullptr;
  for (const Factor& factor : factors) {
    const auto* codes = std::get_if<RegionCodes>(&factor);
    if (codes == nullptr) continue;
    if (only != nullptr) return nullptr;
    only = codes;
  }
  return only;
}

const RegionCodes& LayerCodes::regions() const {
  const RegionCodes* only = only_regions();
  if (only == nullptr) broken("expected one factor of region codes");
  return *only;
}
RegionCodes& LayerCodes::regions() {
  return const_cast<RegionCodes&>(std::as_const(*this).regions());
}

std::string factors_problem(std::span<const FactorSize> sizes) {
  if (sizes.empty() || sizes.size() > kMostFactors) {
    return "expected 1.." + std::to_string(kMostFactors) + " factors, got " +
           std::to_string(sizes.size());
  }
  for (size_t i = 1; i < sizes.size(); ++i) {
    if (sizes[i - 1].cols == sizes[i].rows) continue;
    return "factor " + std::to_string(i) + ": expected " + std::to_string(sizes[i - 1].cols) +
           " rows, got " + std::to_string(sizes[i].rows);
  }
  // What lies between two factors takes memory as if it were a layer.
  const int64_t most = std::max(kLeastInner, 4 * std::max(sizes.front().rows, sizes.back().cols));
  for (size_t i = 1; i < sizes.size(); ++i) {
    if (sizes[i].rows <= most) continue;
    return "factor " + std::to_string(i) + ": expected at most " + std::to_string(most) +
           " rows, got " + std::to_string(sizes[i].rows);
  }
  const auto matrix = [](const FactorSize& size) { return !size.rotation; };
  if (std::none_of(sizes.begin(), sizes.end(), matrix)) return "expected a factor with weights";
  return "";
}

std::vector<float> multiply_factors(std::vector<DecodedFactor> factors, int threads) {
  if (factors.size() == 1) return std::move(factors.front().matrix);
  size_t start = 0;
  while (factors[start].matrix.empty()) ++start;
  const int64_t rows = factors[start].rows;
  int64_t cols = factors[start].cols;
  std::vector<double> product(factors[start].matrix.begin(), factors[start].matrix.end());
  for (size_t i = start + 1; i < factors.size(); ++i) {
    DecodedFactor& factor = factors[i];
    if (factor.matrix.empty()) {  // P R: the rows of P, turned by R'
      Rotation inverse = factor.rotation;
      inverse.transposed = !inverse.transposed;
      rotate_rows(inverse, &product, rows, threads);
    } else {
      product = multiply(product, factor.matrix, rows, cols, factor.cols, threads);
      cols = factor.cols;
    }
    factor.matrix = {};
  }
  if (start > 0) {
    std::vector<double> columns = transposed(product, rows, cols);
    for (size_t i = start; i-- > 0;) rotate_rows(factors[i].rotation, &columns, cols, threads);
    product = transposed(columns, cols, rows);
  }
  return {product.begin(), product.end()};
}

std::vector<float> dequantize(const LayerCodes& codes, int threads) {
  std::vector<DecodedFactor> factors;
  for (const Factor& factor : codes.factors) {
    factors.push_back(
        std::visit([threads](const auto& kind) { return decode(kind, threads); }, factor));
  }
  return multiply_factors(std::move(factors), threads);
}

void check_codes(const LayerCodes& codes, int threads) {
  std::vector<FactorSize> sizes;
  for (const Factor& factor : codes.factors) {
    std::visit([&](const auto& kind) { check(kind, threads); }, factor);
    sizes.push_back(
        {factor_rows(factor), factor_cols(factor), std::holds_alternative<Rotation>(factor)});
  }
  const std::string problem = factors_problem(sizes);
  if (!problem.empty()) broken(problem);
}

}  // namespace billm
