// See factor_counts.h.
#include "factor_counts.h"

#include <algorithm>
#include <variant>

#include "billm/quantize/methods.h"

namespace billm {
namespace {

// `latents`: of the layer; `product`: of factors with or without parameters.
void add_layer(int64_t rows, int64_t cols, int64_t latents, bool product, FactorCounts* counts) {
  counts->latents += latents;
  if (!product) return;
  counts->temporary_bytes = std::max(counts->temporary_bytes, 4 * (2 * latents + rows * cols));
}

// A factor's matrix, and how many numbers of it learn as latents do: of a trellis only its rows'
// scales, beside its values, which stay. A rotation has no matrix.
struct MatrixCounts {
  int64_t rows = 0, cols = 0, latents = 0;
};
MatrixCounts counts_of(const PackedPlanes& planes) {
  return {planes.shape.rows, planes.shape.cols, planes.shape.rows * planes.shape.cols};
}
MatrixCounts counts_of(const Rotation&) { return {}; }
MatrixCounts counts_of(const PackedTrellis& packed) {
  return {packed.format.rows, packed.format.cols, packed.format.rows};
}

double operations(int64_t rows, int64_t rank, int64_t cols) {
  return 2.0 * static_cast<double>(rows) * static_cast<double>(rank) * static_cast<double>(cols);
}

}  // namespace

FactorCounts factor_counts(const ModelSpec& spec, const MethodConfig& method) {
  FactorCounts counts;
  const Method& row = find_method(method.method);
  const bool product = row.rank != nullptr || method.rotate != RotatedSides::kNone;
  for (const LinearSpec& linear : spec.family->linears) {
    const int64_t rows = linear.out_width(spec.config), cols = linear.in_width(spec.config);
    int64_t latents = row.codes_learn ? rows * cols : rows;
    if (row.rank != nullptr) {
      const int64_t rank = row.rank({rows, cols}, method.bits);
      latents = rank * (rows + cols);
      counts.products += operations(rows, rank, cols);
    }
    add_layer(rows, cols, latents, product, &counts);
  }
  return counts;
}

FactorCounts factor_counts(const PackedModules& packed) {
  FactorCounts counts;
  for (const std::string& module : packed.names()) {
    const PackedLayer& layer = packed.description(module);
    int64_t latents = 0, rows = 0;  // rows: of the product of the planes so far
    for (const PackedFactor& factor : layer.factors) {
      const MatrixCounts shape =
          std::visit([](const auto& kind) { return counts_of(kind); }, factor);
      if (shape.rows == 0) continue;
      latents += shape.latents;
      if (rows > 0) counts.products += operations(rows, shape.rows, shape.cols);
      if (rows == 0) rows = shape.rows;
    }
    add_layer(layer.rows(), layer.cols(), latents, layer.product(), &counts);
  }
  return counts;
}

}  // namespace billm
