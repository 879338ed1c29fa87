// See binary_coder.h. Buffers of a tile are [columns][64 rows].
#include "binary_coder.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "billm/base/parallel.h"
#include "buffer.h"
#include "levels.h"
#include "splits.h"

namespace billm {
namespace {

using kernels::kColumnSets;
using kernels::kMaxLevels;
using kernels::kMaxUnknowns;
using kernels::kTileRows;

// The triangle of each column block of R, shared by all tiles.
struct BlockTriangle {
  std::vector<float> rows, columns, norm;
  kernels::BlockFactor factor() const {
    return {static_cast<int>(norm.size()), rows.data(), columns.data(), norm.data()};
  }
};

std::vector<BlockTriangle> block_triangles(const Hessian& hessian, const LinearShape& shape) {
  std::vector<BlockTriangle> triangles(static_cast<size_t>(shape.blocks()));
  for (int64_t b = 0; b < shape.blocks(); ++b) {
    const int64_t first = b * shape.block_size;
    const int64_t width = std::min<int64_t>(shape.block_size, shape.cols - first);
    BlockTriangle& triangle = triangles[b];
    triangle.rows.assign(static_cast<size_t>(width * width), 0.0f);
    triangle.columns.assign(static_cast<size_t>(width * width), 0.0f);
    triangle.norm.assign(static_cast<size_t>(width), 0.0f);
    for (int64_t i = 0; i < width; ++i) {
      for (int64_t j = i; j < width; ++j) {
        const float r = hessian.factor[(first + i) * shape.cols + first + j];
        triangle.rows[i * width + j] = r;
        triangle.columns[j * width + i] = r;
        triangle.norm[i] += r * r;
      }
    }
  }
  return triangles;
}

// One candidate coding of a tile's block.
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
            const MethodConfig& config, const std::vector<BlockTriangle>& triangles,
            QuantizedLinear* out)
      : weight_(weight),
        hessian_(hessian),
        plan_(plan),
        config_(config),
        triangles_(triangles),
        out_(out),
        grid_(plan.shape, out->base),
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
    for (int64_t b = 0; b < plan_.shape.blocks(); ++b) code_block(b);
  }

 private:
  void code_block(int64_t b) {
    const int64_t first = b * plan_.shape.block_size;
    const kernels::BlockFactor factor = triangles_[b].factor();
    const int64_t width = factor.width;
    const int64_t size = width * kTileRows;
    Buffer carried(size), target(size), delta(size), residual(size), keep(size);
    const bool feedback = config_.feedback != Feedback::kNone;
    if (feedback) {
      kernels::accumulate_feedback(d_.get(), first, hessian_.factor.data() + first, weight_.cols,
                                   width, carried.get());
    }
    // The block's weights with the feedback of the earlier blocks, and their image under R_bb.
    Buffer w(size);
    kernels::solve_factor(factor, carried.get(), w.get());
    for (int64_t at = 0; at < size; ++at) w.get()[at] += w_.get()[first * kTileRows + at];
    kernels::multiply_factor(factor, w.get(), target.get());

    const bool masked = !plan_.keep.empty();
    for (int64_t c = 0; masked && c < width; ++c) {
      for (int64_t lane = 0; lane < rows_; ++lane) {
        keep.get()[c * kTileRows + lane] =
            plan_.keep[(first_row_ + lane) * weight_.cols + first + c];
      }
    }
    Candidate next(width), best(width);
    kernels::BlockCodes codes;
    codes.set = set_.data() + first;
    codes.keep = masked ? keep.get() : nullptr;
    codes.q = next.q.get();
    codes.sign = next.sign.get();
    codes.cls = next.cls.get();

    first_levels(b, w.get(), codes.keep, &next.levels);
    grid_.round(&next.levels);
    code(factor, w.get(), codes, delta.get(), &next);
    keep_better(next, width, &best);
    for (int round = 0; round < config_.refine_rounds; ++round) {
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

  void code(const kernels::BlockFactor& factor, const float* w, const kernels::BlockCodes& codes,
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

  void refit_levels(const kernels::BlockFactor& factor, const kernels::BlockCodes& codes,
                    const float* target, kernels::Levels* levels) {
    const bool offsets = plan_.shape.offset_kind == OffsetKind::kBlock;
    kernels::level_equations(factor, codes, levels->classes, offsets, target, scratch_.get(),
                             gram_.get(), right_.get());
    for (int lane = 0; lane < static_cast<int>(rows_); ++lane) {
      solve_levels(gram_.get(), right_.get(), lane, offsets, levels);
    }
  }

  void store(int64_t b, const Candidate& best) {
    const LinearShape& shape = plan_.shape;
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
        if (sign == 0) continue;  // pruned: region and code stay 0
        const int cls = static_cast<int>(best.cls.get()[at]);
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
  const std::vector<BlockTriangle>& triangles_;
  QuantizedLinear* out_;
  LevelGrid grid_;
  Buffer w_, d_;    // [cols][64]: original weights, and original minus stored
  Buffer scratch_;  // of kernels::level_equations
  std::vector<uint8_t> set_;
  Buffer gram_{kMaxUnknowns * kMaxUnknowns * kTileRows}, right_{kMaxUnknowns * kTileRows};
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

}  // namespace

QuantizedLinear code_binary(const WeightView& weight, const Hessian& hessian,
                            const BinaryPlan& plan, const MethodConfig& config) {
  QuantizedLinear out = make_quantized_linear(plan.shape);
  if (plan.shape.salient_classes > 0) out.salient = plan.salient;
  if (plan.shape.scale_format == ScaleFormat::kLog8) out.base = grid_base(weight);
  const std::vector<BlockTriangle> triangles = block_triangles(hessian, plan.shape);
  const int64_t tiles = (weight.rows + kTileRows - 1) / kTileRows;
  parallel_for(tiles, config.threads, [&](int64_t tile) {
    TileCoder coder(weight, hessian, plan, config, triangles, &out);
    coder.run(tile * kTileRows);
  });
  return out;
}

}  // namespace billm
