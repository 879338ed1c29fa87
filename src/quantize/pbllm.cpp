// PB-LLM (arXiv 2310.00034), without its training half: a share of single weights is salient and
// kept in 8 bits on one affine grid per row; the rest is signs with one scale per row and group.
// Fixed: the scale is taken over the binary weights alone (the published code counts the salient
// slots as zeros), every weight of both kinds is coded from its fed-back target, and scales, signs
// and integers are refined in turn.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "billm/base/parallel.h"
#include "binary_coder.h"
#include "method_rows.h"

namespace billm {
namespace {

constexpr int kIntegerBits = 8;

// [rows, cols]: 1 = salient. The top share of each quantization group, over all of its rows, on the
// original weights; of equal scores the earlier row, then the earlier column.
std::vector<uint8_t> choose_weights(const WeightView& weight, const Hessian& hessian,
                                    const RegionFormat& shape, double share, SalientMetric metric,
                                    int threads) {
  std::vector<uint8_t> salient(static_cast<size_t>(weight.rows * weight.cols), 0);
  parallel_for(shape.groups(), threads, [&](int64_t group) {
    const int64_t first = group * shape.block_size;
    const int64_t width = std::min<int64_t>(shape.block_size, shape.cols - first);
    std::vector<float> score;
    score.reserve(static_cast<size_t>(weight.rows * width));
    for (int64_t row = 0; row < weight.rows; ++row) {
      for (int64_t col = first; col < first + width; ++col) {
        const float w = weight.data[row * weight.cols + col];
        const float factor = metric == SalientMetric::kHessian ? hessian.diagonal[col] : 1.0f;
        score.push_back(std::fabs(w * factor));  // ranks as its square does, without overflow
      }
    }
    std::vector<int64_t> order(score.size());
    std::iota(order.begin(), order.end(), 0);
    const auto count =
        static_cast<int64_t>(std::llround(share * static_cast<double>(score.size())));
    std::nth_element(order.begin(), order.begin() + count, order.end(), [&](int64_t x, int64_t y) {
      return score[x] != score[y] ? score[x] > score[y] : x < y;
    });
    for (int64_t i = 0; i < count; ++i) {
      salient[order[i] / width * weight.cols + first + order[i] % width] = 1;
    }
  });
  return salient;
}

}  // namespace

LayerCodes quantize_pbllm(const WeightView& weight, const Hessian& hessian,
                          const MethodConfig& config, const QuantizeContext& context) {
  BinaryPlan plan;
  plan.shape.rows = weight.rows;
  plan.shape.cols = weight.cols;
  plan.shape.block_size = config.block_size;
  plan.shape.classes = 1;
  plan.shape.salient_classes = 0;
  plan.shape.scale_format = config.scale_format;
  plan.shape.offset_kind = config.offset_kind;
  plan.shape.integer_bits = kIntegerBits;
  plan.shape.scattered = true;
  plan.integer = choose_weights(weight, hessian, plan.shape, config.salient_share,
                                config.salient_metric, context.threads);
  return code_binary(weight, hessian, plan, config, context);
}

double nominal_bits_pbllm(const LayerCodes& layer) {
  const double share = region_shares(layer.regions()).back();
  return layer.regions().shape.integer_bits * share + (1 - share);
}

}  // namespace billm
