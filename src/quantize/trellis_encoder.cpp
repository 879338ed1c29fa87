// See trellis_encoder.h. Buffers are tiles of 64 rows [columns][64]; a segment has whole ones.
//
// With H = R R^T, D = W - Q: the error of a row is |D R|^2 (hessian.h), so given the groups before
// it a group adds |(t - q) R_bb|^2, where t is its weights with the feedback. Given all the others
// it adds |(t - q) L|^2 with L L^T = H_bb and t = q + (D H)_b H_bb^-1.
#include "trellis_encoder.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "billm/base/half.h"
#include "billm/base/parallel.h"
#include "billm/quantize/row_share.h"
#include "buffer.h"
#include "kernels/cpu/row_tiles.h"
#include "kernels/cpu/trellis_viterbi.h"
#include "trellis_groups.h"

namespace billm {
namespace {

using kernels::kTileRows;

constexpr int64_t kC = kTrellisColumns;
constexpr int64_t kBlock = 64;  // columns whose feedback from further left is added up at once
// From pass to pass, of the first scales.
constexpr double kGrowth = 1.15, kLargestGrowth = 4;

// What all segments share.
struct Plan {
  const WeightView& weight;
  const Hessian& hessian;
  TrellisFormat format;
  std::vector<GroupMetric> feedback;  // of each group: R_bb
  std::vector<GroupMetric> sweep;     // L, empty without sweeps
  std::vector<int32_t> gains;
  std::vector<float> residuals;
  TrellisCodes* out;
};

class SegmentCoder {
 public:
  SegmentCoder(const Plan& plan, int64_t segment)
      : plan_(plan),
        cols_(plan.format.cols),
        first_row_(segment * plan.format.segment_rows()),
        rows_(std::min(plan.format.segment_rows(), plan.format.rows - first_row_)),
        tiles_((rows_ + kTileRows - 1) / kTileRows),
        w_(tiles_ * cols_ * kTileRows),
        d_(tiles_ * cols_ * kTileRows),
        block_(tiles_ * kBlock * kTileRows),
        x_(static_cast<size_t>(rows_ * kC)),
        rest_(x_.size()),
        value_(static_cast<size_t>(plan.format.planes())),
        next_(static_cast<size_t>(plan.format.planes())),
        inverse_(static_cast<size_t>(rows_)),
        row_weight_(static_cast<size_t>(rows_)) {
    for (auto& values : value_) values.resize(x_.size());
    for (auto& states : next_) states.resize(static_cast<size_t>(rows_));
  }

  void run(int sweeps) {
    load();
    code_with_feedback();
    for (int i = 0; i < sweeps; ++i) {
      for (int64_t first = 0; first < cols_; first += kBlock) sweep_block(first);
      refit();
    }
  }

 private:
  float* tile_of(Buffer& buffer, int64_t tile) { return buffer.get() + tile * cols_ * kTileRows; }
  // Of a row and column in tiles of `width` columns.
  static int64_t place(int64_t row, int64_t col, int64_t width) {
    return (row / kTileRows * width + col) * kTileRows + row % kTileRows;
  }
  float* scales() { return plan_.out->scale.data() + first_row_; }
  uint8_t* states_of(size_t plane, int64_t group) {
    return plan_.out->states[plane].data() + group * plan_.format.rows + first_row_;
  }

  void load() {
    for (int64_t row = 0; row < rows_; ++row) {
      const float* from = plan_.weight.data + (first_row_ + row) * cols_;
      for (int64_t col = 0; col < cols_; ++col) w_.get()[place(row, col, cols_)] = from[col];
    }
  }

  std::vector<double> row_sizes() {
    std::vector<double> sizes;
    for (int64_t row = 0; row < rows_; ++row) {
      const float* from = plan_.weight.data + (first_row_ + row) * cols_;
      double sum = 0;
      for (int64_t col = 0; col < cols_; ++col) sum += static_cast<double>(from[col]) * from[col];
      sizes.push_back(std::sqrt(sum / static_cast<double>(cols_)));
    }
    return sizes;
  }

  // As they are stored, and what depends on them: inverses (0 of 0), weights of rows (mean 1).
  void set_scales(const std::vector<double>& sizes) {
    constexpr double kMost = 65504;
    double sum = 0;
    for (int64_t row = 0; row < rows_; ++row) {
      const float scale = round_to_half(
          static_cast<float>(std::clamp(sizes[static_cast<size_t>(row)], 0.0, kMost)));
      scales()[row] = scale;
      inverse_[static_cast<size_t>(row)] = scale > 0 ? 1 / scale : 0.0f;
      sum += static_cast<double>(scale) * scale;
    }
    const double mean = sum / static_cast<double>(rows_);
    for (int64_t row = 0; row < rows_; ++row) {
      const double scale = scales()[row];
      row_weight_[static_cast<size_t>(row)] =
          mean > 0 ? static_cast<float>(scale * scale / mean) : 0.0f;
    }
  }

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
      if (!(error < least)) break;
      least = error;
      best = keep();
    }
    restore(best);
  }

  // The codes of this segment.
  struct Kept {
    std::vector<std::vector<uint8_t>> states;  // of each plane, [groups][rows]
    std::vector<double> scales;
  };

  Kept keep() {
    Kept kept;
    for (size_t p = 0; p < value_.size(); ++p) {
      kept.states.emplace_back();
      for (int64_t group = 0; group < plan_.format.groups(); ++group) {
        const uint8_t* states = states_of(p, group);
        kept.states.back().insert(kept.states.back().end(), states, states + rows_);
      }
    }
    kept.scales.assign(scales(), scales() + rows_);
    return kept;
  }

  void restore(const Kept& kept) {
    for (size_t p = 0; p < kept.states.size(); ++p) {
      for (int64_t group = 0; group < plan_.format.groups(); ++group) {
        std::copy_n(kept.states[p].begin() + group * rows_, rows_, states_of(p, group));
      }
    }
    set_scales(kept.scales);
    Buffer q(tiles_ * cols_ * kTileRows);
    load_values(&q);
    set_errors(q);
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
      kernels::trellis_viterbi(
          kernels::make_trellis_metric(kTrellisTable, unit, metric.factor), rate, rest_.data(),
          row_weight_.data(), rows_, next_[p].data(), &scratch_);
      set_values(p, next_[p].data());
    }
  }

  void set_values(size_t p, const uint8_t* states) {
    const std::vector<int32_t> gain = {plan_.gains[p]};
    for (int64_t row = 0; row < rows_; ++row) {
      trellis_values(gain, states + row, value_[p].data() + row * kC);
    }
  }

  float sum_of_planes(size_t at) const {
    float sum = 0;
    for (const auto& values : value_) sum += values[at];  // exact: integers times 2^-19
    return sum;
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

  // ---- Row scales: a of the least |(w - a q) R|^2; returns the sum of that over the rows

  double refit() {
    Buffer q(tiles_ * cols_ * kTileRows);
    load_values(&q);
    const auto size = static_cast<size_t>(tiles_ * kTileRows);
    std::vector<double> of_weights(size, 0.0), with_w(size, 0.0), with_itself(size, 0.0);
    Buffer of_q(kBlock * kTileRows), of_w(kBlock * kTileRows);
    for (int64_t tile = 0; tile < tiles_; ++tile) {
      for (int64_t first = 0; first < cols_; first += kBlock) {
        const int64_t width = std::min(kBlock, cols_ - first);
        std::fill_n(of_q.get(), width * kTileRows, 0.0f);
        std::fill_n(of_w.get(), width * kTileRows, 0.0f);
        const float* factor = plan_.hessian.factor.data() + first;
        kernels::accumulate_feedback(tile_of(q, tile), first + width, factor, cols_, width,
                                     of_q.get());
        kernels::accumulate_feedback(tile_of(w_, tile), first + width, factor, cols_, width,
                                     of_w.get());
        for (int64_t at = 0; at < width * kTileRows; ++at) {
          const auto row = static_cast<size_t>(tile * kTileRows + at % kTileRows);
          const double x = of_q.get()[at], w = of_w.get()[at];
          of_weights[row] += w * w;
          with_w[row] += x * w;
          with_itself[row] += x * x;
        }
      }
    }
    std::vector<double> sizes;
    for (size_t row = 0; row < static_cast<size_t>(rows_); ++row) {
      // A row of zeros keeps its scale of 0.
      const bool fits = with_itself[row] > 0 && inverse_[row] > 0;
      sizes.push_back(fits ? with_w[row] / with_itself[row] : 0.0);
    }
    set_scales(sizes);
    set_errors(q);
    double error = 0;
    for (size_t row = 0; row < static_cast<size_t>(rows_); ++row) {
      const double a = scales()[row];
      error += of_weights[row] - a * (2 * with_w[row] - a * with_itself[row]);
    }
    return error;
  }

  // Values without scales: of one group, to value_; of all, to q [tiles][cols][64].
  void load_values(int64_t col) {
    for (size_t p = 0; p < value_.size(); ++p) set_values(p, states_of(p, col / kC));
  }
  void load_values(Buffer* q) {
    for (int64_t col = 0; col < cols_; col += kC) {
      load_values(col);
      for (int64_t row = 0; row < rows_; ++row) {
        for (int64_t j = 0; j < std::min(kC, cols_ - col); ++j) {
          q->get()[place(row, col + j, cols_)] = sum_of_planes(static_cast<size_t>(row * kC + j));
        }
      }
    }
  }

  void set_errors(const Buffer& q) {
    for (int64_t row = 0; row < rows_; ++row) {
      for (int64_t col = 0; col < cols_; ++col) {
        const int64_t at = place(row, col, cols_);
        d_.get()[at] = w_.get()[at] - scales()[row] * q.get()[at];
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

  const Plan& plan_;
  const int64_t cols_, first_row_, rows_, tiles_;
  Buffer w_, d_;   // [tiles][cols][64]: original weights, and original minus stored
  Buffer block_;   // [tiles][kBlock][64]: feedback, or D H, of a block of columns
  std::vector<float> x_, rest_;            // [rows][4], in units of the row's scale
  std::vector<std::vector<float>> value_;  // of each plane, [rows][4]
  std::vector<std::vector<uint8_t>> next_;  // of each plane, [rows]
  std::vector<float> inverse_, row_weight_;
  std::vector<float> old_;
  kernels::TrellisScratch scratch_;
};

}  // namespace

TrellisCodes code_trellis(const WeightView& weight, const Hessian& hessian,
                          const std::vector<int>& rates, int sweeps,
                          const QuantizeContext& context) {
  TrellisCodes out = make_trellis_codes({weight.rows, weight.cols, rates});
  Plan plan{weight,
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
