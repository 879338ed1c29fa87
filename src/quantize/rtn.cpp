// RTN: per row and quantization group, alpha = mean |w| and the sign of each weight (1 bit), or the
// min/max grid and the nearest integer (2..4 bits, gptq.cpp). The baseline without calibration.
#include <algorithm>
#include <cmath>

#include "levels.h"
#include "method_rows.h"

namespace billm {

LayerCodes quantize_rtn(const WeightView& weight, const Hessian& /*hessian*/,
                        const MethodConfig& config, const QuantizeContext& context) {
  if (config.bits > 1) return quantize_rtn_integers(weight, config, context);
  RegionFormat shape;
  shape.rows = weight.rows;
  shape.cols = weight.cols;
  shape.block_size = config.block_size;
  shape.classes = 1;
  shape.salient_classes = 0;
  shape.scale_format = config.scale_format;
  RegionCodes out = make_region_codes(shape);
  for (int64_t row = 0; row < shape.rows; ++row) {
    for (int64_t group = 0; group < shape.groups(); ++group) {
      const int64_t first = group * shape.block_size;
      const int64_t end = std::min<int64_t>(shape.cols, first + shape.block_size);
      double sum = 0;
      for (int64_t col = first; col < end; ++col) {
        const float w = weight.data[row * shape.cols + col];
        sum += std::fabs(w);
        out.region[row * shape.cols + col] = 1;
        out.code[row * shape.cols + col] = !(w < 0);
      }
      const auto alpha = static_cast<float>(sum / static_cast<double>(end - first));
      out.scale[out.scale_index(group, 1, row)] = alpha;
      out.base = std::max(out.base, alpha);
    }
  }
  if (shape.scale_format != ScaleFormat::kLog8) out.base = 0;
  const LevelGrid grid(shape, out.base);
  for (float& scale : out.scale) scale = grid.round_scale(scale);
  return out;
}

double nominal_bits_rtn(const LayerCodes& layer) {
  return std::max(1, layer.regions().shape.integer_bits);
}

}  // namespace billm
