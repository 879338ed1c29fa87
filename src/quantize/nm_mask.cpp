// STBLLM (arXiv 2408.01803): SI scores and N:M masks.
#include <algorithm>
#include <cmath>
#include <vector>

#include "billm/quantize/methods.h"

namespace billm {

std::vector<float> si_scores(const WeightView& weight, const Hessian& hessian) {
  std::vector<float> diagonal;
  for (int64_t j = 0; j < weight.cols; ++j) {
    diagonal.push_back(hessian.matrix[j * weight.cols + j]);
  }
  return si_scores(weight, diagonal);
}

std::vector<float> si_scores(const WeightView& weight, const std::vector<float>& diagonal) {
  std::vector<double> row_sum(static_cast<size_t>(weight.rows), 0.0);
  std::vector<double> col_sum(static_cast<size_t>(weight.cols), 0.0);
  for (int64_t i = 0; i < weight.rows; ++i) {
    for (int64_t j = 0; j < weight.cols; ++j) {
      const double w = std::fabs(weight.data[i * weight.cols + j]);
      row_sum[i] += w;
      col_sum[j] += w;
    }
  }
  std::vector<float> scores(static_cast<size_t>(weight.rows * weight.cols), 0.0f);
  for (int64_t j = 0; j < weight.cols; ++j) {
    // |x_j|_2^0.5 up to a common factor; sqrt twice is exactly rounded everywhere.
    const double input = std::sqrt(std::sqrt(double{diagonal[j]}));
    for (int64_t i = 0; i < weight.rows; ++i) {
      const double w = std::fabs(weight.data[i * weight.cols + j]);
      if (w == 0) continue;
      scores[i * weight.cols + j] = static_cast<float>((w / col_sum[j] + w / row_sum[i]) * input);
    }
  }
  return scores;
}

std::vector<uint8_t> nm_mask(const std::vector<float>& scores, int64_t rows, int64_t cols,
                             const NmPattern& nm) {
  std::vector<uint8_t> keep(static_cast<size_t>(rows * cols), 1);
  if (!nm.active()) return keep;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t first = 0; first < cols; first += nm.m) {
      const int columns = static_cast<int>(std::min<int64_t>(nm.m, cols - first));
      const float* score = scores.data() + i * cols + first;
      int order[16];
      for (int c = 0; c < columns; ++c) order[c] = c;
      std::stable_sort(order, order + columns, [&](int x, int y) { return score[x] > score[y]; });
      for (int c = nm.kept(columns); c < columns; ++c) keep[i * cols + first + order[c]] = 0;
    }
  }
  return keep;
}

}  // namespace billm
