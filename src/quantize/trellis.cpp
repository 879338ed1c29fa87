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

const std::vector<int>& rates_of(double bits) {
  return kRates[static_cast<size_t>(std::lround(4 * bits)) - 1];
}

}  // namespace

LayerCodes quantize_trellis(const WeightView& weight, const Hessian& hessian,
                            const MethodConfig& config, const QuantizeContext& context) {
  return code_trellis(weight, hessian, rates_of(config.bits), config.sweeps, context);
}

// Streams with their start states, and a scale in fp16 for each row (docs/format.md).
double rate_bits_trellis(const LayerSize& layer, const MethodConfig& config) {
  const TrellisFormat format = {layer.rows, layer.cols, rates_of(config.bits)};
  int64_t bytes = 2 * layer.rows;
  for (int p = 0; p < format.planes(); ++p) bytes += format.groups() * format.group_bytes(p);
  return 8 * static_cast<double>(bytes) /
         (static_cast<double>(layer.rows) * static_cast<double>(layer.cols));
}

double nominal_bits_trellis(const LayerCodes& codes) {
  return std::get<TrellisCodes>(codes.factors.front()).format.bits();
}

}  // namespace billm
