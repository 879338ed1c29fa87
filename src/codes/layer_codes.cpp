// Products of factors: see include/billm/codes/layer_codes.h.
#include "billm/codes/layer_codes.h"

#include <algorithm>
#include <optional>

#include "billm/base/error.h"
#include "billm/base/parallel.h"

namespace billm {
namespace {

constexpr const char* kNames[] = {"planes", "rotation"};
static_assert(std::size(kNames) == kFactorKinds);

int64_t rows_of(const RegionCodes& codes) { return codes.shape.rows; }
int64_t cols_of(const RegionCodes& codes) { return codes.shape.cols; }
int64_t rows_of(const Rotation& rotation) { return rotation.size; }
int64_t cols_of(const Rotation& rotation) { return rotation.size; }

[[noreturn]] void broken(const std::string& what) {
  throw Error(ErrorCode::kFailure, "quantized layer is inconsistent: " + what);
}

constexpr int64_t kRowsAtOnce = 16;

// [rows, inner] times [inner, cols]: every element is the sum over the inner index in ascending
// order, starting with its first term, each product and each sum rounded to double.
std::vector<double> multiply(const std::vector<double>& a, const std::vector<float>& b,
                             int64_t rows, int64_t inner, int64_t cols, int threads) {
  std::vector<double> result(static_cast<size_t>(rows * cols));
  parallel_parts(rows, kRowsAtOnce, threads, [&](int64_t first, int64_t end) {
    for (int64_t row = first; row < end; ++row) {
      double* to = result.data() + row * cols;
      for (int64_t i = 0; i < inner; ++i) {
        const double factor = a[static_cast<size_t>(row * inner + i)];
        const float* from = b.data() + i * cols;
        if (i == 0) {
          for (int64_t col = 0; col < cols; ++col)
            to[col] = factor * static_cast<double>(from[col]);
        } else {
          for (int64_t col = 0; col < cols; ++col)
            to[col] += factor * static_cast<double>(from[col]);
        }
      }
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

DecodedFactor decode(const RegionCodes& codes) {
  return {codes.shape.rows, codes.shape.cols, dequantize(codes), {}};
}
DecodedFactor decode(const Rotation& rotation) {
  return {rotation.size, rotation.size, {}, rotation};
}

void check(const RegionCodes& codes, int threads) { check_codes(codes, threads); }
void check(const Rotation& rotation, int) { check_rotation(rotation, "quantized layer"); }

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
    factors.push_back(std::visit([](const auto& kind) { return decode(kind); }, factor));
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
