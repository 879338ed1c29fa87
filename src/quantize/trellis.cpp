// Trellis-coded weights: four neighbouring columns at a time, K bits a row for each of them and a
// plane, in one table of 256 entries (codes/trellis.h; QTIP, arXiv 2406.11235, has the idea). Error
// feedback and sweeps in the metric of the whole Hessian (trellis_encoder.h).
#include <cmath>

#include "billm/base/error.h"
#include "method_rows.h"
#include "trellis_encoder.h"

namespace billm {
namespace {

// Rates of the planes by quarters of a bit, 1..12: the best of the splits that were measured
// (docs/decisions/0019-trellis.md).
const std::vector<int> kRates[] = {{1},    {2},    {3},       {4},       {4, 1},    {4, 2},
                                   {4, 3}, {4, 4}, {4, 4, 1}, {4, 4, 2}, {4, 4, 3}, {4, 4, 4}};

}  // namespace

LayerCodes quantize_trellis(const WeightView& weight, const Hessian& hessian,
                            const MethodConfig& config, const QuantizeContext& context) {
  const auto quarters = static_cast<size_t>(std::lround(4 * config.bits));
  return code_trellis(weight, hessian, kRates[quarters - 1], config.sweeps, context);
}

double nominal_bits_trellis(const LayerCodes& codes) {
  return std::get<TrellisCodes>(codes.factors.front()).format.bits();
}

}  // namespace billm
