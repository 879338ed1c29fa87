// See trellis_encoder.h.
//
// With H = R R^T, D = W - Q: the error of a row is |D R|^2 (hessian.h), so given the groups before
// it a group adds |(t - q) R_bb|^2, where t is its weights with the feedback. Given all the others
// it adds |(t - q) L|^2 with L L^T = H_bb and t = q + (D H)_b H_bb^-1.
#include "trellis_encoder.h"

#include <algorithm>
#include <cmath>

#include "billm/base/parallel.h"
#include "billm/quantize/row_share.h"
#include "kernels/cpu/trellis_viterbi.h"
#include "trellis_segment.h"

namespace billm {
namespace {

// From pass to pass, of the first scales.
constexpr double kGrowth = 1.08, kLargestGrowth = 4;

class SegmentCoder : public TrellisSegment {
 public:
  SegmentCoder(const TrellisPlan& plan, int64_t segment)
      : TrellisSegment(plan, segment),
        block_(tiles_ * kBlock * kTileRows),
        x_(static_cast<size_t>(rows_ * kC)),
        rest_(x_.size()),
        next_(static_cast<size_t>(plan.format.planes())) {
    for (auto& states : next_) states.resize(static_cast<size_t>(rows_));
  }

  void run(int sweeps) {
    code_with_feedback();
    for (int i = 0; i < sweeps; ++i) {
      for (int64_t first = 0; first < cols_; first += kBlock) sweep_block(first);
      refit();
    }
  }

 private:
  // ---- The pass with feedback

  // Errors that are fed on make the later groups larger than the weights are, the more the fewer
  // bits there are; values beyond the table's reach would grow from group to group. So the scales
  // grow from pass to pass, as long as the error falls, and the best pass is kept.
  void code_with_feedback() {
    const std::vector<double> sizes = row_sizes();
    double least = INFINITY;
    Kept best;
    for (double factor = 1; factor < kLargestGrowth; factor *= kGrowth) {
      std::vector<double> grown = sizes;
      for (double& size : grown) size *= factor;
      set_scales(grown);
      for (int64_t first = 0; first < cols_; first += kBlock) code_block(first);
      const double error = refit();
      if (factor > 1 && !(error < least)) break;
      least = error;
      best = keep();
    }
    restore(best);
  }

  void code_block(int64_t first) {
    const int64_t width = std::min(kBlock, cols_ - first);
    const float* factor = plan_.hessian.factor.data();
    for (int64_t tile = 0; tile < tiles_; ++tile) {
      float* carried = block_.get() + tile * kBlock * kTileRows;
      std::fill_n(carried, width * kTileRows, 0.0f);
      kernels::accumulate_feedback(tile_of(d_, tile), first, factor + first, cols_, width, carried);
    }
    for (int64_t col = first; col < first + width; col += kC) {
      const int64_t count = std::min(kC, cols_ - col);
      const GroupMetric& metric = plan_.feedback[static_cast<size_t>(col / kC)];
      for (int64_t tile = 0; tile < tiles_; ++tile) {
        float* carried = block_.get() + (tile * kBlock + col - first) * kTileRows;
        kernels::accumulate_feedback(tile_of(d_, tile) + first * kTileRows, col - first,
                                     factor + first * cols_ + col, cols_, count, carried);
      }
      for (int64_t row = 0; row < rows_; ++row) {
        float carried[kC] = {}, moved[kC];
        for (int64_t j = 0; j < count; ++j) {
          carried[j] = block_.get()[place(row, col - first + j, kBlock)];
        }
        metric.solve(carried, moved);
        for (int64_t j = 0; j < kC; ++j) {
          const float w = j < count ? w_.get()[place(row, col + j, cols_)] : 0.0f;
          x_[static_cast<size_t>(row * kC + j)] =
              (w + moved[j]) * inverse_[static_cast<size_t>(row)];
        }
      }
      for (auto& values : value_) std::fill(values.begin(), values.end(), 0.0f);
      code_group(metric);
      store(col, count);
    }
  }

  // Codes x_ plane by plane, each given the values of all the others: states to next_, values_.
  void code_group(const GroupMetric& metric) {
    for (size_t p = 0; p < value_.size(); ++p) {
      const float up = 1 / plan_.residuals[p];
      for (size_t at = 0; at < x_.size(); ++at) {
        float rest = x_[at];
        for (size_t other = 0; other < value_.size(); ++other) {
          if (other != p) rest -= value_[other][at];
        }
        rest_[at] = rest * up;
      }
      const int rate = plan_.format.rates[p];
      const float unit = std::ldexp(static_cast<float>(plan_.gains[p]), -kTrellisShift) * up;
      kernels::trellis_viterbi(kernels::make_trellis_metric(kTrellisTable, unit, metric.factor),
                               rate, rest_.data(), row_weight_.data(), rows_, next_[p].data(),
                               &scratch_);
      set_values(p, next_[p].data());
    }
  }

  // Takes next_ over: states, and d_ of the group's columns.
  void store(int64_t col, int64_t count) {
    for (size_t p = 0; p < next_.size(); ++p) {
      std::copy(next_[p].begin(), next_[p].end(), states_of(p, col / kC));
    }
    for (int64_t row = 0; row < rows_; ++row) {
      for (int64_t j = 0; j < count; ++j) {
        const int64_t at = place(row, col + j, cols_);
        d_.get()[at] =
            w_.get()[at] - scales()[row] * sum_of_planes(static_cast<size_t>(row * kC + j));
      }
    }
  }

  // ---- Sweeps

  void sweep_block(int64_t first) {
    const int64_t width = std::min(kBlock, cols_ - first);
    const float* matrix = plan_.hessian.matrix.data();
    for (int64_t tile = 0; tile < tiles_; ++tile) {  // (D H) without the damping
      float* sums = block_.get() + tile * kBlock * kTileRows;
      std::fill_n(sums, width * kTileRows, 0.0f);
      kernels::accumulate_feedback(tile_of(d_, tile), cols_, matrix + first, cols_, width, sums);
    }
    Buffer change(kC * kTileRows);
    for (int64_t col = first; col < first + width; col += kC) {
      const int64_t count = std::min(kC, cols_ - col);
      if (!sweep_group(first, col, count)) continue;
      for (int64_t tile = 0; tile < tiles_; ++tile) {
        for (int64_t at = 0; at < count * kTileRows; ++at) {
          change.get()[at] = old_[static_cast<size_t>(tile * kC * kTileRows + at)];
        }
        kernels::accumulate_feedback(change.get(), count, matrix + col * cols_ + first, cols_,
                                     width, block_.get() + tile * kBlock * kTileRows);
      }
    }
  }

  // False: the codes stay. Else the change of D is in old_ [tiles][4][64].
  bool sweep_group(int64_t first, int64_t col, int64_t count) {
    const GroupMetric& metric = plan_.sweep[static_cast<size_t>(col / kC)];
    load_values(col);
    for (int64_t row = 0; row < rows_; ++row) {
      float slope[kC] = {}, moved[kC];
      for (int64_t j = 0; j < count; ++j) {
        slope[j] = block_.get()[place(row, col - first + j, kBlock)] +
                   metric.added[j] * d_.get()[place(row, col + j, cols_)];
      }
      metric.solve(slope, moved);
      for (int64_t j = 0; j < kC; ++j) {
        const auto at = static_cast<size_t>(row * kC + j);
        x_[at] = sum_of_planes(at) + moved[j] * inverse_[static_cast<size_t>(row)];
      }
    }
    const double before = loss(metric);
    code_group(metric);
    if (!(loss(metric) < before)) return false;
    old_.assign(static_cast<size_t>(tiles_ * kC * kTileRows), 0.0f);
    const auto for_group = [&](auto body) {
      for (int64_t row = 0; row < rows_; ++row) {
        for (int64_t j = 0; j < count; ++j) {
          body(old_[static_cast<size_t>(place(row, j, kC))], d_.get()[place(row, col + j, cols_)]);
        }
      }
    };
    for_group([](float& old, float d) { old = d; });
    store(col, count);
    for_group([](float& old, float d) { old = d - old; });
    return true;
  }

  // Of the values as they are, weighted.
  double loss(const GroupMetric& metric) const {
    double sum = 0;
    for (int64_t row = 0; row < rows_; ++row) {
      float e[kC], moved[kC];
      for (int64_t j = 0; j < kC; ++j) {
        const auto at = static_cast<size_t>(row * kC + j);
        e[j] = x_[at] - sum_of_planes(at);
      }
      metric.multiply(e, moved);
      double own = 0;
      for (const float m : moved) own += static_cast<double>(m) * m;
      sum += row_weight_[static_cast<size_t>(row)] * own;
    }
    return sum;
  }

  Buffer block_;                 // [tiles][kBlock][64]: feedback, or D H, of a block of columns
  std::vector<float> x_, rest_;  // [rows][4], in units of the row's scale
  std::vector<std::vector<uint8_t>> next_;  // of each plane, [rows]
  std::vector<float> old_;
  kernels::TrellisScratch scratch_;
};

}  // namespace

TrellisCodes code_trellis(const WeightView& weight, const Hessian& hessian,
                          const std::vector<int>& rates, int sweeps,
                          const QuantizeContext& context) {
  TrellisCodes out = make_trellis_codes({weight.rows, weight.cols, rates});
  const TrellisPlan plan = {weight,
                            hessian,
                            out.format,
                            feedback_metrics(hessian),
                            sweeps > 0 ? sweep_metrics(hessian) : std::vector<GroupMetric>(),
                            trellis_gains(rates),
                            trellis_residuals(rates),
                            &out};
  const int64_t segments = out.format.segments();
  const RowShare::Tiles own =
      context.share != nullptr ? context.share->own(segments) : RowShare::Tiles{0, segments};
  parallel_for(own.count, context.threads,
               [&](int64_t segment) { SegmentCoder(plan, own.first + segment).run(sweeps); });
  if (context.share != nullptr) context.share->complete(&out);
  return out;
}

}  // namespace billm
