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

// Of what learns with a matrix; 0 of a rotation.
LayerSize matrix_size(const PackedPlanes& planes) { return {planes.shape.rows, planes.shape.cols}; }
LayerSize matrix_size(const Rotation&) { return {}; }
LayerSize matrix_size(const PackedTrellis& packed) {
  return {packed.format.rows, packed.format.cols};
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
    int64_t latents = rows * cols;
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
      const LayerSize shape =
          std::visit([](const auto& kind) { return matrix_size(kind); }, factor);
      if (shape.rows == 0) continue;
      latents += shape.rows * shape.cols;
      if (rows > 0) counts.products += operations(rows, shape.rows, shape.cols);
      if (rows == 0) rows = shape.rows;
    }
    add_layer(layer.rows(), layer.cols(), latents, layer.product(), &counts);
  }
  return counts;
}

}  // namespace billm
