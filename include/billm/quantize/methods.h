// The table of methods: one file each, one row each. Help texts, checks of the command line and the
// conformance tests read it.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "billm/quantize/config.h"
#include "billm/quantize/context.h"
#include "billm/quantize/hessian.h"
#include "billm/quantize/settings.h"

namespace billm {

// One weight to quantize, row-major [rows, cols].
struct WeightView {
  const float* data = nullptr;
  int64_t rows = 0, cols = 0;
};

// A weight [rows, cols] that a run will quantize.
struct LayerSize {
  int64_t rows = 0, cols = 0;
};

struct Method {
  const char* name;
  const char* summary;  // one line of help, with the paper
  // Pure: no I/O, no global state; the same bytes for the same input on every machine (but for
  // same_on_every_cpu).
  LayerCodes (*quantize)(const WeightView& weight, const Hessian& hessian,
                         const MethodConfig& config, const QuantizeContext& context);
  // The paper's own figure for a layer with this share of salient columns.
  double (*nominal_bits)(const LayerCodes& layer);
  std::span<const SettingUse> settings;  // what it uses of the settings table
  bool needs_factor = true;              // whether Hessian::factor is used
  // Memory besides R, its triangles and the codes: bytes per element of R and of the weight.
  int square_bytes = 0, weight_bytes = 0;
  // Called once in a run with all its weights, in the order in which they are quantized: what
  // `bits` is for each of them (config.bits: for all together), which are the bits that are stored.
  // Null: the same for all.
  std::vector<double> (*plan_bits)(std::span<const LayerSize> layers,
                                   const MethodConfig& config) = nullptr;
  // Of methods whose layer is a product [rows, r] [r, cols]: r with so many bits. Null: no product.
  int64_t (*rank)(const LayerSize& layer, double bits) = nullptr;
  // Stored bits of a weight at a rate (rates_of() of allocate_bits.h) that is the configuration's
  // `bits`, exactly. Null: the method has none.
  double (*rate_bits)(const LayerSize& layer, const MethodConfig& config) = nullptr;
  bool codes_learn = true;  // --tune learns them; false: their scales alone
  // false: the codes rest on dense algebra (kernels/cpu/dense.h), so the bytes are the same at any
  // thread count, but only on the same kind of CPU.
  bool same_on_every_cpu = true;
};

std::span<const Method> methods();
// Throws Error{kUsage} listing the known names.
const Method& find_method(const std::string& name);

// Bits of a weight of methods that make integers; 0 of others.
int integer_bits(const MethodConfig& config);

// STBLLM's SI score of each weight, [rows, cols] (docs: `(|w|/col sum + |w|/row sum) * |x_j|^0.5`).
std::vector<float> si_scores(const WeightView& weight, const Hessian& hessian);
// The same from the diagonal of H or of X^T X alone, [cols], up to a common factor of all scores.
std::vector<float> si_scores(const WeightView& weight, const std::vector<float>& diagonal);
// Keeps the N highest scores of every M consecutive columns; ties keep the lower column. [rows,
// cols]
std::vector<uint8_t> nm_mask(const std::vector<float>& scores, int64_t rows, int64_t cols,
                             const NmPattern& nm);

}  // namespace billm
