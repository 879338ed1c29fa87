// See binary_coder.h. Buffers of a tile are [columns][64 rows].
#include "binary_coder.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "buffer.h"
#include "coded_tiles.h"
#include "device_coder.h"
#include "group_triangles.h"
#include "integer_grid.h"
#include "levels.h"
#include "splits.h"

namespace billm {
namespace {

using kernels::kColumnSets;
using kernels::kMaxLevels;
using kernels::kMaxUnknowns;
using kernels::kTileRows;

// A salient weight takes up the errors of the columns before it, so the range of its row's integers
// is widened by this factor.
constexpr float kFeedbackRoom = 1.25f;

// One candidate coding of a tile's group.
struct Candidate {
  explicit Candidate(int64_t width)
      : q(width * kTileRows), sign(width * kTileRows), cls(width * kTileRows) {
    loss.fill(INFINITY);
  }
  Buffer q, sign, cls;
  kernels::Levels levels;
  alignas(64) std::array<float, kTileRows> loss;
};

// Takes over the rows in which `next` is better.
void keep_better(const Candidate& next, int64_t width, Candidate* best) {
  std::array<bool, kTileRows> better;
  for (int lane = 0; lane < kTileRows; ++lane) {
    better[lane] = next.loss[lane] < best->loss[lane];
    if (better[lane]) {
      best->loss[lane] = next.loss[lane];
      copy_levels(next.levels, lane, &best->levels);
    }
  }
  const auto merge = [&](const Buffer& from, Buffer* to) {
    for (int64_t c = 0; c < width; ++c) {
      const float* source = from.get() + c * kTileRows;
      float* target = to->get() + c * kTileRows;
      for (int lane = 0; lane < kTileRows; ++lane) {
        target[lane] = better[lane] ? source[lane] : target[lane];
      }
    }
  };
  merge(next.q, &best->q);
  merge(next.sign, &best->sign);
  merge(next.cls, &best->cls);
}

class TileCoder {
 public:
  TileCoder(const WeightView& weight, const Hessian& hessian, const BinaryPlan& plan,
            const MethodConfig& config, const std::vector<GroupTriangle>& triangles,
            const LevelGrid& grid, RegionCodes* out)
      : weight_(weight),
        hessian_(hessian),
        plan_(plan),
        config_(config),
        triangles_(triangles),
        out_(out),
        grid_(grid),
        w_(weight.cols * kTileRows),
        d_(weight.cols * kTileRows),
        scratch_(2 * kMaxUnknowns * std::min<int64_t>(plan.shape.block_size, weight.cols) *
                 kTileRows),
        set_(static_cast<size_t>(weight.cols), 0) {
    if (!plan.salient.empty()) set_ = plan.salient;
  }

  void run(int64_t first_row) {
    first_row_ = first_row;
    rows_ = std::min<int64_t>(kTileRows, weight_.rows - first_row);
    for (int64_t col = 0; col < weight_.cols; ++col) {
      for (int64_t lane = 0; lane < rows_; ++lane) {
        w_.get()[col * kTileRows + lane] = weight_.data[(first_row + lane) * weight_.cols + col];
      }
    }
    if (!plan_.integer.empty()) set_integers();
    for (int64_t b = 0; b < plan_.shape.groups(); ++b) code_group(b);
  }

 private:
  void set_integers() {
    integers_.last = static_cast<float>((1 << plan_.shape.integer_bits) - 1);
    for (int64_t lane = 0; lane < rows_; ++lane) {
      const int64_t row = first_row_ + lane;
      set_lane({out_->step[row], out_->zero[row]}, static_cast<int>(lane), &integers_);
    }
  }

  void code_group(int64_t b) {
    const int64_t first = b * plan_.shape.block_size;
    const kernels::GroupFactor factor = triangles_[b].factor();
    const int64_t width = factor.width;
    const int64_t size = width * kTileRows;
    Buffer carried(size), target(size), delta(size), residual(size), keep(size);
    const bool feedback = config_.feedback != Feedback::kNone;
    if (feedback) {
      kernels::accumulate_feedback(d_.get(), first, hessian_.factor.data() + first, weight_.cols,
                                   width, carried.get());
    }
    // The group's weights with the feedback of the earlier groups, and their image under R_bb.
    Buffer w(size);
    kernels::solve_factor(factor, carried.get(), w.get());
    for (int64_t at = 0; at < size; ++at) w.get()[at] += w_.get()[first * kTileRows + at];
    kernels::multiply_factor(factor, w.get(), target.get());

    const std::vector<uint8_t>& mask = plan_.integer.empty() ? plan_.keep : plan_.integer;
    const bool masked = !mask.empty();
    const uint8_t binary = plan_.integer.empty() ? 1 : 0;  // what the mask says of binary weights
    for (int64_t c = 0; masked && c < width; ++c) {
      for (int64_t lane = 0; lane < rows_; ++lane) {
        keep.get()[c * kTileRows + lane] =
            mask[(first_row_ + lane) * weight_.cols + first + c] == binary;
      }
    }
    Candidate next(width), best(width);
    kernels::GroupCodes codes;
    codes.set = set_.data() + first;
    codes.keep = masked ? keep.get() : nullptr;
    codes.integers = plan_.integer.empty() ? nullptr : &integers_;
    codes.q = next.q.get();
    codes.sign = next.sign.get();
    codes.cls = next.cls.get();

    first_levels(b, w.get(), codes.keep, &next.levels);
    grid_.round(&next.levels);
    code(factor, w.get(), codes, delta.get(), &next);
    keep_better(next, width, &best);
    for (int round = 0; round < config_.refine_rounds; ++round) {
      if (codes.integers != nullptr) binary_target(factor, codes, w.get(), target.get());
      refit_levels(factor, codes, target.get(), &next.levels);
      grid_.round(&next.levels);
      if (config_.descend && feedback) {
        kernels::requantize(factor, next.levels, w.get(), codes, delta.get());
        kernels::multiply_factor(factor, delta.get(), residual.get());
        kernels::descend_codes(factor, next.levels, codes, delta.get(), residual.get(),
                               next.loss.data());
      } else {
        code(factor, w.get(), codes, delta.get(), &next);
      }
      keep_better(next, width, &best);
    }
    store(b, best);
  }

  void code(const kernels::GroupFactor& factor, const float* w, const kernels::GroupCodes& codes,
            float* delta, Candidate* next) const {
    const auto kernel = config_.feedback == Feedback::kColumns ? kernels::code_with_feedback
                                                               : kernels::code_nearest;
    kernel(factor, next->levels, w, codes, delta, next->loss.data());
  }

  // Levels (and the offset) of the magnitude split, weighted by R_jj^2.
  void first_levels(int64_t b, const float* w, const float* keep, kernels::Levels* levels) {
    const int64_t first = b * plan_.shape.block_size;
    const int64_t width = triangles_[b].factor().width;
    levels->classes[0] = plan_.shape.classes;
    levels->classes[1] = plan_.shape.salient_classes;
    for (int64_t lane = 0; lane < rows_; ++lane) {
      double sum = 0, weights = 0;
      for (int64_t c = 0; c < width; ++c) {
        const int64_t at = c * kTileRows + lane;
        if (keep != nullptr && keep[at] == 0) continue;
        const double h = double{hessian_.diagonal[first + c]} * hessian_.diagonal[first + c];
        sum += h * w[at];
        weights += h;
      }
      const bool offsets = plan_.shape.offset_kind == OffsetKind::kBlock;
      levels->offset[lane] = offsets && weights > 0 ? static_cast<float>(sum / weights) : 0.0f;
      for (int set = 0; set < kColumnSets; ++set) {
        fit_.reset();
        for (int64_t c = 0; c < width; ++c) {
          const int64_t at = c * kTileRows + lane;
          if (set_[first + c] != set || (keep != nullptr && keep[at] == 0)) continue;
          const float r = hessian_.diagonal[first + c];
          fit_.add(std::fabs(w[at] - levels->offset[lane]), r * r);
        }
        float fitted[kMaxLevels] = {};
        if (levels->classes[set] > 0) fit_.fit(levels->classes[set], fitted);
        for (int k = 0; k < kMaxLevels; ++k) levels->level[set][k][lane] = fitted[k];
      }
    }
  }

  // What the levels have to make: the image of the weights less the integers as they are coded.
  void binary_target(const kernels::GroupFactor& factor, const kernels::GroupCodes& codes,
                     const float* w, float* target) {
    const int64_t size = int64_t{factor.width} * kTileRows;
    for (int64_t at = 0; at < size; ++at) {
      scratch_.get()[at] = codes.keep[at] != 0 ? w[at] : w[at] - codes.q[at];
    }
    kernels::multiply_factor(factor, scratch_.get(), target);
  }

  void refit_levels(const kernels::GroupFactor& factor, const kernels::GroupCodes& codes,
                    const float* target, kernels::Levels* levels) {
    const bool offsets = plan_.shape.offset_kind == OffsetKind::kBlock;
    kernels::level_equations(factor, codes, levels->classes, offsets, target, scratch_.get(),
                             gram_.get(), right_.get());
    for (int lane = 0; lane < static_cast<int>(rows_); ++lane) {
      solve_levels(gram_.get(), right_.get(), lane, offsets, levels);
    }
  }

  void store(int64_t b, const Candidate& best) {
    const RegionFormat& shape = plan_.shape;
    const int64_t first = b * shape.block_size;
    const int64_t width = triangles_[b].factor().width;
    for (int64_t c = 0; c < width; ++c) {
      const int set = set_[first + c];
      for (int64_t lane = 0; lane < rows_; ++lane) {
        const int64_t at = c * kTileRows + lane;
        d_.get()[(first + c) * kTileRows + lane] =
            w_.get()[(first + c) * kTileRows + lane] - best.q.get()[at];
        const int64_t weight = (first_row_ + lane) * shape.cols + first + c;
        const float sign = best.sign.get()[at];
        const int cls = static_cast<int>(best.cls.get()[at]);
        if (sign == 0) {
          if (plan_.integer.empty()) continue;  // pruned: region and code stay 0
          out_->region[weight] = static_cast<uint8_t>(shape.integer_region());
          out_->code[weight] = static_cast<uint8_t>(cls);
          continue;
        }
        out_->region[weight] = static_cast<uint8_t>(1 + cls + (set == 1 ? shape.classes : 0));
        out_->code[weight] = sign > 0;
      }
    }
    for (int64_t lane = 0; lane < rows_; ++lane) {
      for (int set = 0; set < kColumnSets; ++set) {
        for (int k = 0; k < best.levels.classes[set]; ++k) {
          const int region = 1 + k + (set == 1 ? shape.classes : 0);
          out_->scale[out_->scale_index(b, region, first_row_ + lane)] =
              best.levels.level[set][k][lane];
        }
      }
      if (shape.offset_kind == OffsetKind::kBlock) {
        out_->offset[out_->offset_index(b, 1, first_row_ + lane)] = best.levels.offset[lane];
      }
    }
  }

  const WeightView& weight_;
  const Hessian& hessian_;
  const BinaryPlan& plan_;
  const MethodConfig& config_;
  const std::vector<GroupTriangle>& triangles_;
  RegionCodes* out_;
  const LevelGrid& grid_;
  Buffer w_, d_;    // [cols][64]: original weights, and original minus stored
  Buffer scratch_;  // of kernels::level_equations
  std::vector<uint8_t> set_;
  Buffer gram_{kMaxUnknowns * kMaxUnknowns * kTileRows}, right_{kMaxUnknowns * kTileRows};
  kernels::IntegerGrid integers_;
  MagnitudeFit fit_;
  int64_t first_row_ = 0, rows_ = 0;
};

// Twice the largest weight: room for feedback, within a grid of 16 octaves.
float grid_base(const WeightView& weight) {
  float largest = 0;
  for (int64_t i = 0; i < weight.rows * weight.cols; ++i) {
    largest = std::max(largest, std::fabs(weight.data[i]));
  }
  return 2 * largest;
}

// The grid of a row's integers: the range of their weights and room for the feedback.
AffineGrid fit_integers(const WeightView& weight, const BinaryPlan& plan, int64_t row) {
  float low = 0, high = 0;
  for (int64_t at = row * weight.cols; at < (row + 1) * weight.cols; ++at) {
    if (plan.integer[at] == 0) continue;
    low = std::min(low, weight.data[at]);
    high = std::max(high, weight.data[at]);
  }
  return affine_grid(kFeedbackRoom * low, kFeedbackRoom * high, plan.shape.integer_bits);
}

}  // namespace

RegionCodes code_binary(const WeightView& weight, const Hessian& hessian, const BinaryPlan& plan,
                        const MethodConfig& config, const QuantizeContext& context) {
  RegionCodes out = make_region_codes(plan.shape);
  if (plan.shape.salient_classes > 0) out.salient = plan.salient;
  if (plan.shape.scale_format == ScaleFormat::kLog8) out.base = grid_base(weight);
  if (!plan.integer.empty()) {
    parallel_for(weight.rows, context.threads, [&](int64_t row) {
      const AffineGrid grid = fit_integers(weight, plan, row);
      out.step[row] = grid.step;
      out.zero[row] = grid.zero;
    });
  }
  const std::vector<GroupTriangle> triangles =
      group_triangles(hessian.factor, plan.shape.cols, plan.shape.block_size);
  const LevelGrid grid(plan.shape, out.base);
  if (device_codes(plan, context)) {
    code_on_device(weight, hessian, plan, config, context, triangles, grid, &out);
    return out;
  }
  code_tiles(
      context, kTileRows,
      [&](int64_t first_row) {
        TileCoder(weight, hessian, plan, config, triangles, grid, &out).run(first_row);
      },
      &out);
  return out;
}

}  // namespace billm
