// Blocked H = R R^T from the last column to the first. With the last block's columns factored, the
// remaining leading part is updated by H -= R_b R_b^T, tile by tile; lanes are columns, the sum
// over the block's columns ascends, and Mul/Add are not fused.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/cholesky.cpp"
#include "hwy/foreach_target.h"  // must come before highway.h
// clang-format off
#include "hwy/highway.h"
// clang-format on

#include <algorithm>
#include <cmath>
#include <vector>

#include "billm/base/parallel.h"
#include "kernels/cpu/cholesky.h"

HWY_BEFORE_NAMESPACE();
namespace billm::kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// h[i][j] -= sum_k left[i][k] * right[k][j] for four rows i at `h`, j in [0, width), width a
// multiple of 8. left rows are `left_stride` apart; right is [depth][right_stride].
void SubtractProduct(double* h, int64_t stride, const double* left, int64_t left_stride,
                     const double* right, int64_t right_stride, int64_t depth, int64_t width) {
  const hn::CappedTag<double, 8> tag;
  using V = hn::Vec<decltype(tag)>;
  const int64_t n = static_cast<int64_t>(hn::Lanes(tag));
  for (int64_t j = 0; j < width; j += n) {
    V s0 = hn::Zero(tag), s1 = s0, s2 = s0, s3 = s0;
    for (int64_t k = 0; k < depth; ++k) {
      const V r = hn::LoadU(tag, right + k * right_stride + j);
      s0 = hn::Add(s0, hn::Mul(hn::Set(tag, left[k]), r));
      s1 = hn::Add(s1, hn::Mul(hn::Set(tag, left[left_stride + k]), r));
      s2 = hn::Add(s2, hn::Mul(hn::Set(tag, left[2 * left_stride + k]), r));
      s3 = hn::Add(s3, hn::Mul(hn::Set(tag, left[3 * left_stride + k]), r));
    }
    double* o = h + j;
    hn::StoreU(hn::Sub(hn::LoadU(tag, o), s0), tag, o);
    hn::StoreU(hn::Sub(hn::LoadU(tag, o + stride), s1), tag, o + stride);
    hn::StoreU(hn::Sub(hn::LoadU(tag, o + 2 * stride), s2), tag, o + 2 * stride);
    hn::StoreU(hn::Sub(hn::LoadU(tag, o + 3 * stride), s3), tag, o + 3 * stride);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace billm::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace billm::kernels {

HWY_EXPORT(SubtractProduct);

bool factor_upper(double* h, int64_t n, int64_t stride, int threads) {
  constexpr int64_t kBlock = 64;
  std::vector<double> panel;       // [rows rounded up to 4][kBlock]: R of the block's columns
  std::vector<double> transposed;  // [kBlock][rows rounded up to 8]
  std::vector<double> negative_inverse;
  const int64_t last_start = (n - 1) / kBlock * kBlock;
  for (int64_t start = last_start; start >= 0; start -= kBlock) {
    const int64_t end = std::min(n, start + kBlock);
    const int64_t width = end - start;
    // The diagonal block, last column first.
    for (int64_t j = end - 1; j >= start; --j) {
      double pivot = h[j * stride + j];
      for (int64_t k = j + 1; k < end; ++k) pivot -= h[j * stride + k] * h[j * stride + k];
      if (!(pivot > 0) || !std::isfinite(pivot)) return false;
      const double root = std::sqrt(pivot);
      h[j * stride + j] = root;
      for (int64_t i = start; i < j; ++i) {
        double sum = h[i * stride + j];
        for (int64_t k = j + 1; k < end; ++k) sum -= h[i * stride + k] * h[j * stride + k];
        h[i * stride + j] = sum / root;
      }
    }
    if (start == 0) break;
    // The rows above: R_panel = h_panel (R_bb')^-1, with the inverse of the small triangle.
    const int64_t rows4 = (start + 3) / 4 * 4, rows8 = (start + 7) / 8 * 8;
    panel.assign(static_cast<size_t>(rows4 * kBlock), 0.0);
    transposed.assign(static_cast<size_t>(kBlock * rows8), 0.0);
    negative_inverse.assign(static_cast<size_t>(kBlock * kBlock), 0.0);  // -(R_bb')^-1, lower
    for (int64_t j = 0; j < width; ++j) {
      for (int64_t i = j; i < width; ++i) {
        double sum = i == j ? -1.0 : 0.0;
        for (int64_t k = j; k < i; ++k) {
          sum -= h[(start + k) * stride + start + i] * negative_inverse[k * kBlock + j];
        }
        negative_inverse[i * kBlock + j] = sum / h[(start + i) * stride + start + i];
      }
    }
    const auto subtract = HWY_DYNAMIC_DISPATCH(SubtractProduct);
    const int64_t chunks = start / kBlock;  // start is a multiple of kBlock
    parallel_for(chunks, threads, [&](int64_t chunk) {
      for (int64_t i = chunk * kBlock; i < (chunk + 1) * kBlock; i += 4) {
        // panel starts at 0: panel = 0 - h_panel * (-(R_bb')^-1).
        subtract(panel.data() + i * kBlock, kBlock, h + i * stride + start, stride,
                 negative_inverse.data(), kBlock, width, kBlock);
      }
      for (int64_t i = chunk * kBlock; i < (chunk + 1) * kBlock; ++i) {
        for (int64_t k = 0; k < width; ++k) {
          h[i * stride + start + k] = panel[i * kBlock + k];
          transposed[k * rows8 + i] = panel[i * kBlock + k];
        }
      }
    });
    // The leading part. Only j >= i is read later, so a row tile starts at its own first column.
    const int64_t tiles = (start + kBlock - 1) / kBlock;
    parallel_for(tiles, threads, [&](int64_t tile) {
      const int64_t first = tile * kBlock;
      const int64_t limit = std::min(start, first + kBlock);
      for (int64_t i = first; i < limit; i += 4) {
        // start is a multiple of kBlock, so groups of four rows never cross it.
        subtract(h + i * stride + first, stride, panel.data() + i * kBlock, kBlock,
                 transposed.data() + first, rows8, width, start - first);
      }
    });
  }
  for (int64_t i = 0; i < n; ++i) std::fill(h + i * stride, h + i * stride + i, 0.0);
  return true;
}

}  // namespace billm::kernels
#endif
