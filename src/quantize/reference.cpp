// --compat reference: what the published code of BiLLM does, defects included, so that it can be
// compared (docs/decisions/0004-billm-fixed.md lists them). The search runs on the saliency matrix
// s = w^2 / U_jj^2; the feedback divides by the diagonal only and ignores the inside of a
// quantization group. With a mask (STBLLM) the mask stays strict, which the published code does not
// do.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "billm/base/parallel.h"
#include "levels.h"
#include "method_rows.h"

namespace billm {
namespace {

constexpr int kTopColumns = 50;   // k is searched in 1..49
constexpr int kPercentiles = 81;  // BiLLM; STBLLM takes 160
constexpr int kStbllmPercentiles = 160;

// mu and alpha of one class of a row, twice for order 2.
struct Binarized {
  float mu = 0, alpha = 0, mu2 = 0, alpha2 = 0;
};

float sign_of(float x) { return x > 0 ? 1.0f : x < 0 ? -1.0f : 0.0f; }

// Binarizes the values of `x` (one row's class) to `order`; writes the approximation to `out`.
Binarized binarize(const std::vector<float>& x, int order, std::vector<float>* out) {
  Binarized result;
  out->assign(x.size(), 0.0f);
  if (x.empty()) return result;
  for (int o = 0; o < order; ++o) {
    double sum = 0;
    for (size_t i = 0; i < x.size(); ++i) sum += x[i] - (*out)[i];
    const auto mu = static_cast<float>(sum / static_cast<double>(x.size()));
    sum = 0;
    for (size_t i = 0; i < x.size(); ++i) sum += std::fabs(x[i] - (*out)[i] - mu);
    const auto alpha = static_cast<float>(sum / static_cast<double>(x.size()));
    for (size_t i = 0; i < x.size(); ++i) {
      (*out)[i] += sign_of(x[i] - (*out)[i] - mu) * alpha + mu;
    }
    (o == 0 ? result.mu : result.mu2) = mu;
    (o == 0 ? result.alpha : result.alpha2) = alpha;
  }
  return result;
}

// One quantization group of the layer: the saliency matrix and the weights, [rows][width].
struct Group {
  int64_t rows, width;
  std::vector<float> w, s;
  std::vector<uint8_t> keep;  // [rows * width]
};

// Squared error of a row of s when the columns of set `member` are binarized to `order`.
template <typename Member>
double class_error(const Group& group, int64_t row, int order, const Member& member,
                   std::vector<float>* x, std::vector<float>* approximation) {
  x->clear();
  for (int64_t c = 0; c < group.width; ++c) {
    const int64_t at = row * group.width + c;
    if (group.keep[at] != 0 && member(c, group.s[at])) x->push_back(group.s[at]);
  }
  binarize(*x, order, approximation);
  double error = 0;
  for (size_t i = 0; i < x->size(); ++i) {
    const double d = (*x)[i] - (*approximation)[i];
    error += d * d;
  }
  return error;
}

// torch.quantile: linear interpolation in the sorted values.
float quantile(const std::vector<float>& sorted, double q) {
  const double position = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const auto share = static_cast<float>(position - static_cast<double>(below));
  return sorted[below] + (sorted[above] - sorted[below]) * share;
}

std::vector<uint8_t> search_salient(const Group& group, int threads) {
  std::vector<float> score(static_cast<size_t>(group.width), 0.0f);
  for (int64_t row = 0; row < group.rows; ++row) {
    for (int64_t c = 0; c < group.width; ++c) score[c] += group.s[row * group.width + c];
  }
  std::vector<int64_t> order(score.size()), rank(score.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t x, int64_t y) { return score[x] > score[y]; });
  for (int64_t i = 0; i < group.width; ++i) rank[order[i]] = i;
  const int64_t limit = std::min<int64_t>(kTopColumns, group.width);
  std::vector<double> error(static_cast<size_t>(limit), INFINITY);
  parallel_for(limit - 1, threads, [&](int64_t index) {
    const int64_t k = index + 1;
    std::vector<float> x, approximation;
    double sum = 0;
    for (int64_t row = 0; row < group.rows; ++row) {
      for (const bool salient : {true, false}) {
        sum += class_error(
            group, row, 2, [&](int64_t c, float) { return (rank[c] < k) == salient; }, &x,
            &approximation);
      }
    }
    error[k] = sum;
  });
  const int64_t best = std::min_element(error.begin(), error.end()) - error.begin();
  std::vector<uint8_t> salient(static_cast<size_t>(group.width));
  for (int64_t c = 0; c < group.width; ++c) salient[c] = limit > 1 && rank[c] < best;
  return salient;
}

// Class of an ordinary weight of saliency s: p splits two classes, p and 2p three.
int class_of(float s, float p, int classes) {
  return s < p ? 0 : classes == 2 || s < 2 * p ? 1 : 2;
}

float search_split(const Group& group, const std::vector<uint8_t>& salient, int classes,
                   int threads) {
  std::vector<float> sorted(group.s);
  for (size_t i = 0; i < sorted.size(); ++i) {
    if (salient[i % group.width]) sorted[i] = 0;  // the zeros of the salient columns count
  }
  std::sort(sorted.begin(), sorted.end());
  const int count = classes == 2 ? kPercentiles : kStbllmPercentiles;
  std::vector<double> error(static_cast<size_t>(count));
  std::vector<float> threshold(error.size());
  parallel_for(count, threads, [&](int64_t i) {
    const auto q = static_cast<float>(0.1 + 0.8 * static_cast<double>(i) / (count - 1));
    const float p = threshold[i] = quantile(sorted, q);
    std::vector<float> x, approximation;
    double sum = 0;
    for (int64_t row = 0; row < group.rows; ++row) {
      for (int t = 0; t < classes; ++t) {
        sum += class_error(
            group, row, 1,
            [&](int64_t c, float s) { return !salient[c] && class_of(s, p, classes) == t; }, &x,
            &approximation);
      }
    }
    error[i] = sum;
  });
  return threshold[std::min_element(error.begin(), error.end()) - error.begin()];
}

// U with (H + lambda I)^-1 = U^T U: the inverse of R, [n, n].
std::vector<float> inverse_factor(const Hessian& hessian, int threads) {
  const int64_t n = hessian.width;
  std::vector<float> inverse(static_cast<size_t>(n * n), 0.0f);
  parallel_for(n, threads, [&](int64_t col) {  // R x = e_col, by back substitution
    std::vector<double> x(static_cast<size_t>(col + 1), 0.0);
    for (int64_t i = col; i >= 0; --i) {
      double sum = i == col ? 1.0 : 0.0;
      for (int64_t k = i + 1; k <= col; ++k) sum -= x[k] * hessian.factor[i * n + k];
      x[i] = sum / hessian.factor[i * n + i];
      inverse[i * n + col] = static_cast<float>(x[i]);
    }
  });
  return inverse;
}

}  // namespace

RegionCodes quantize_reference(const WeightView& weight, const Hessian& hessian,
                               const std::vector<uint8_t>& keep, const RegionFormat& shape,
                               int threads) {
  RegionFormat stored = shape;
  stored.offset_kind = OffsetKind::kRegion;
  if (stored.scale_format == ScaleFormat::kLog8) stored.scale_format = ScaleFormat::kF16;
  RegionCodes out = make_region_codes(stored);
  const LevelGrid grid(stored, 0);
  const std::vector<float> u = inverse_factor(hessian, threads);
  const int64_t rows = weight.rows, cols = weight.cols;
  std::vector<float> w(weight.data, weight.data + rows * cols);
  for (int64_t i = 0; i < rows * cols; ++i) {
    if (hessian.dead[i % cols]) w[i] = 0;
  }
  for (int64_t b = 0; b < stored.groups(); ++b) {
    const int64_t first = b * stored.block_size;
    Group group{rows, std::min<int64_t>(stored.block_size, cols - first), {}, {}, {}};
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t c = 0; c < group.width; ++c) {
        const int64_t at = row * cols + first + c;
        const float value = w[at];
        const float uc = u[(first + c) * cols + first + c];
        const bool kept = keep.empty() || keep[at] != 0;
        group.keep.push_back(kept);
        group.w.push_back(value);
        group.s.push_back(kept ? value * value / (uc * uc) : 0.0f);
      }
    }
    const std::vector<uint8_t> salient = search_salient(group, threads);
    const float p = search_split(group, salient, stored.classes, threads);
    for (int64_t c = 0; c < group.width; ++c) out.salient[first + c] = salient[c];
    parallel_for(rows, threads, [&](int64_t row) {
      std::vector<float> x, approximation, error(static_cast<size_t>(group.width));
      std::vector<int64_t> columns;
      for (int t = 0; t <= stored.classes; ++t) {  // the last one: salient
        const bool is_salient = t == stored.classes;
        x.clear();
        columns.clear();
        for (int64_t c = 0; c < group.width; ++c) {
          const int64_t at = row * group.width + c;
          if (group.keep[at] == 0 || (salient[c] != 0) != is_salient) continue;
          if (!is_salient && class_of(group.s[at], p, stored.classes) != t) continue;
          x.push_back(group.w[at]);
          columns.push_back(c);
        }
        const Binarized fit = binarize(x, is_salient ? 2 : 1, &approximation);
        const auto store = [&](int region, float offset, float scale) {
          out.scale[out.scale_index(b, region, row)] = grid.round_scale(scale);
          out.offset[out.offset_index(b, region, row)] = grid.round_scale(offset);
        };
        if (is_salient) {
          store(1 + stored.classes, fit.mu + fit.mu2, fit.alpha - fit.alpha2);
          store(2 + stored.classes, fit.mu + fit.mu2, fit.alpha + fit.alpha2);
        } else {
          store(1 + t, fit.mu, fit.alpha);
        }
        for (size_t i = 0; i < x.size(); ++i) {
          const int64_t at = row * cols + first + columns[i];
          const bool plus = x[i] >= fit.mu;  // sign(0) = 0 has no code: plus
          const float first_order = fit.mu + (plus ? fit.alpha : -fit.alpha);
          const bool outer = plus == (x[i] - first_order >= fit.mu2);
          out.code[at] = plus;
          out.region[at] =
              static_cast<uint8_t>(is_salient ? 1 + stored.classes + (outer ? 1 : 0) : 1 + t);
        }
      }
      float* updated = w.data() + row * cols;
      for (int64_t c = 0; c < group.width; ++c) {
        const int64_t col = first + c;
        error[c] = (updated[col] - out.value(row, col)) / u[col * cols + col];
      }
      for (int64_t c = 0; c < group.width; ++c) {
        const float* u_row = u.data() + (first + c) * cols;
        for (int64_t col = first + group.width; col < cols; ++col) {
          updated[col] -= error[c] * u_row[col];
        }
      }
    });
  }
  return out;
}

}  // namespace billm
