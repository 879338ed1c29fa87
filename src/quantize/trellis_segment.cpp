// See trellis_segment.h.
#include "trellis_segment.h"

#include <algorithm>
#include <cmath>

#include "billm/base/half.h"

namespace billm {

TrellisSegment::TrellisSegment(const TrellisPlan& plan, int64_t segment)
    : plan_(plan),
      cols_(plan.format.cols),
      first_row_(segment * plan.format.segment_rows()),
      rows_(std::min(plan.format.segment_rows(), plan.format.rows - first_row_)),
      tiles_((rows_ + kTileRows - 1) / kTileRows),
      w_(tiles_ * cols_ * kTileRows),
      d_(tiles_ * cols_ * kTileRows),
      value_(static_cast<size_t>(plan.format.planes())),
      inverse_(static_cast<size_t>(rows_)),
      row_weight_(static_cast<size_t>(rows_)) {
  for (auto& values : value_) values.resize(static_cast<size_t>(rows_ * kC));
  for (int64_t row = 0; row < rows_; ++row) {
    const float* from = plan_.weight.data + (first_row_ + row) * cols_;
    for (int64_t col = 0; col < cols_; ++col) w_.get()[place(row, col, cols_)] = from[col];
  }
}

std::vector<double> TrellisSegment::row_sizes() const {
  std::vector<double> sizes;
  for (int64_t row = 0; row < rows_; ++row) {
    const float* from = plan_.weight.data + (first_row_ + row) * cols_;
    double sum = 0;
    for (int64_t col = 0; col < cols_; ++col) sum += static_cast<double>(from[col]) * from[col];
    sizes.push_back(std::sqrt(sum / static_cast<double>(cols_)));
  }
  return sizes;
}

void TrellisSegment::set_scales(const std::vector<double>& sizes) {
  constexpr double kMost = 65504;
  double sum = 0;
  for (int64_t row = 0; row < rows_; ++row) {
    const float scale =
        round_to_half(static_cast<float>(std::clamp(sizes[static_cast<size_t>(row)], 0.0, kMost)));
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

void TrellisSegment::set_values(size_t p, const uint8_t* states) {
  const std::vector<int32_t> gain = {plan_.gains[p]};
  for (int64_t row = 0; row < rows_; ++row) {
    trellis_values(gain, states + row, value_[p].data() + row * kC);
  }
}

double TrellisSegment::refit() {
  Buffer q = all_values();
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

void TrellisSegment::load_values(int64_t col) {
  for (size_t p = 0; p < value_.size(); ++p) set_values(p, states_of(p, col / kC));
}

Buffer TrellisSegment::all_values() {
  Buffer q(tiles_ * cols_ * kTileRows);
  for (int64_t col = 0; col < cols_; col += kC) {
    load_values(col);
    for (int64_t row = 0; row < rows_; ++row) {
      for (int64_t j = 0; j < std::min(kC, cols_ - col); ++j) {
        q.get()[place(row, col + j, cols_)] = sum_of_planes(static_cast<size_t>(row * kC + j));
      }
    }
  }
  return q;
}

void TrellisSegment::set_errors(const Buffer& q) {
  for (int64_t row = 0; row < rows_; ++row) {
    for (int64_t col = 0; col < cols_; ++col) {
      const int64_t at = place(row, col, cols_);
      d_.get()[at] = w_.get()[at] - scales()[row] * q.get()[at];
    }
  }
}

TrellisSegment::Kept TrellisSegment::keep() const {
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

void TrellisSegment::restore(const Kept& kept) {
  for (size_t p = 0; p < kept.states.size(); ++p) {
    for (int64_t group = 0; group < plan_.format.groups(); ++group) {
      std::copy_n(kept.states[p].begin() + group * rows_, rows_, states_of(p, group));
    }
  }
  set_scales(kept.scales);
  set_errors(all_values());
}

}  // namespace billm
