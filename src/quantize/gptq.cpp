// GPTQ (arXiv 2210.17323): integers of 2, 3 or 4 bits, each column rounded from its fed-back target
// (the LDLQ form of the recursion, see Hessian). With act-order the columns are coded by descending
// diag H; the groups that share step and zero stay those of the original columns ("static groups"),
// so that nothing is stored for the order.
#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "billm/base/parallel.h"
#include "buffer.h"
#include "coded_tiles.h"
#include "group_triangles.h"
#include "integer_grid.h"
#include "kernels/cpu/integer_tiles.h"
#include "method_rows.h"

namespace billm {
namespace {

using kernels::kTileRows;

// Grids tried per row and group: the min/max one, shrunk by factors of 1.05 down to 0.3 and with
// its zero moved by -1, 0, 1; the least error weighted by R_jj^2 wins. On the golden layer at 2
// bits the search takes a third off the error of min/max alone; twice as many factors take less
// than 1 % more (docs/decisions/0006-integers.md).
constexpr int kLargestFactor = 21, kSmallestFactor = 6;
constexpr float kFactorSteps = 20.0f;

RegionFormat integer_shape(const WeightView& weight, int block_size, int bits) {
  RegionFormat shape;
  shape.rows = weight.rows;
  shape.cols = weight.cols;
  shape.block_size = block_size;
  shape.classes = shape.salient_classes = 0;
  shape.scale_format = ScaleFormat::kF16;
  shape.integer_bits = bits;
  return shape;
}

// What all tiles share.
struct Plan {
  std::vector<int64_t> order;  // the column coded c-th
  std::vector<float> factor;   // R of the columns in that order
  std::vector<GroupTriangle> triangles;
  std::vector<float> weights;  // R_jj^2 in the original order
};

class TileCoder {
 public:
  TileCoder(const WeightView& weight, const Plan& plan, bool act_order, RegionCodes* out)
      : weight_(weight),
        plan_(plan),
        act_order_(act_order),
        out_(out),
        shape_(out->shape),
        w_(weight.cols * kTileRows),
        d_(weight.cols * kTileRows),
        grids_(static_cast<size_t>(shape_.groups())) {}

  void run(int64_t first_row) {
    first_row_ = first_row;
    rows_ = std::min<int64_t>(kTileRows, weight_.rows - first_row);
    if (act_order_) {
      load([](int64_t c) { return c; });
      for (int64_t group = 0; group < shape_.groups(); ++group) {
        fit(group, w_.get() + group * shape_.block_size * kTileRows);
      }
    }
    load([this](int64_t c) { return plan_.order[c]; });
    for (int64_t b = 0; b < shape_.groups(); ++b) code_group(b);
  }

 private:
  // w_ [cols][64]: column c of the tile is the weight's column column(c).
  template <typename Column>
  void load(Column column) {
    for (int64_t c = 0; c < weight_.cols; ++c) {
      for (int64_t lane = 0; lane < rows_; ++lane) {
        w_.get()[c * kTileRows + lane] =
            weight_.data[(first_row_ + lane) * weight_.cols + column(c)];
      }
    }
  }

  // Step and zero of a group from its weights w [width][64], in the original order.
  void fit(int64_t group, const float* w) {
    const int64_t first = group * shape_.block_size;
    const int64_t width = std::min<int64_t>(shape_.block_size, shape_.cols - first);
    const int bits = shape_.integer_bits;
    std::array<float, kTileRows> low{}, high{};
    for (int64_t at = 0; at < width * kTileRows; ++at) {
      low[at % kTileRows] = std::min(low[at % kTileRows], w[at]);
      high[at % kTileRows] = std::max(high[at % kTileRows], w[at]);
    }
    kernels::IntegerGrid& best = grids_[group];
    kernels::IntegerGrid next;
    best.last = next.last = static_cast<float>((1 << bits) - 1);
    alignas(64) std::array<float, kTileRows> error;
    std::array<float, kTileRows> least;
    least.fill(INFINITY);
    for (int k = kLargestFactor; k >= kSmallestFactor; --k) {
      const float factor = static_cast<float>(k) / kFactorSteps;
      for (const int move : {0, -1, 1}) {
        for (int lane = 0; lane < kTileRows; ++lane) {
          AffineGrid grid = affine_grid(factor * low[lane], factor * high[lane], bits);
          grid.zero = static_cast<uint8_t>(std::clamp(grid.zero + move, 0, (1 << bits) - 1));
          set_lane(grid, lane, &next);
        }
        kernels::grid_error(next, w, plan_.weights.data() + first, width, error.data());
        for (int lane = 0; lane < kTileRows; ++lane) {
          if (!(error[lane] < least[lane])) continue;
          least[lane] = error[lane];
          best.step[lane] = next.step[lane];
          best.inverse[lane] = next.inverse[lane];
          best.zero[lane] = next.zero[lane];
        }
      }
    }
    for (int64_t lane = 0; lane < rows_; ++lane) {
      const int64_t at = out_->step_index(group, first_row_ + lane);
      out_->step[at] = best.step[lane];
      out_->zero[at] = static_cast<uint8_t>(best.zero[lane]);
    }
  }

  void code_group(int64_t b) {
    const int64_t first = b * shape_.block_size;
    const kernels::GroupFactor factor = plan_.triangles[b].factor();
    const int64_t size = int64_t{factor.width} * kTileRows;
    Buffer carried(size), w(size), code(size), delta(size);
    kernels::accumulate_feedback(d_.get(), first, plan_.factor.data() + first, weight_.cols,
                                 factor.width, carried.get());
    kernels::solve_factor(factor, carried.get(), w.get());
    for (int64_t at = 0; at < size; ++at) w.get()[at] += w_.get()[first * kTileRows + at];
    if (!act_order_) fit(b, w.get());  // from the fed-back weights, as the published code
    std::vector<const kernels::IntegerGrid*> grids;
    for (int c = 0; c < factor.width; ++c) {
      grids.push_back(&grids_[shape_.group_of(plan_.order[first + c])]);
    }
    kernels::code_integers(factor, grids.data(), w.get(), code.get(), delta.get());
    for (int64_t c = 0; c < factor.width; ++c) {
      for (int64_t lane = 0; lane < rows_; ++lane) {
        const float value = code.get()[c * kTileRows + lane];
        const int64_t at = (first + c) * kTileRows + lane;
        d_.get()[at] = w_.get()[at] - (value - grids[c]->zero[lane]) * grids[c]->step[lane];
        out_->code[(first_row_ + lane) * shape_.cols + plan_.order[first + c]] =
            static_cast<uint8_t>(value);
      }
    }
  }

  const WeightView& weight_;
  const Plan& plan_;
  const bool act_order_;
  RegionCodes* out_;
  const RegionFormat& shape_;
  Buffer w_, d_;  // [cols][64] in coding order: original weights, and original minus stored
  std::vector<kernels::IntegerGrid> grids_;  // [groups]
  int64_t first_row_ = 0, rows_ = 0;
};

}  // namespace

LayerCodes quantize_gptq(const WeightView& weight, const Hessian& hessian,
                         const MethodConfig& config, const QuantizeContext& context) {
  RegionCodes out =
      make_region_codes(integer_shape(weight, config.block_size, integer_bits(config)));
  std::fill(out.region.begin(), out.region.end(), static_cast<uint8_t>(out.shape.integer_region()));
  Plan plan;
  plan.order.resize(static_cast<size_t>(weight.cols));
  std::iota(plan.order.begin(), plan.order.end(), 0);
  if (config.act_order) {
    std::stable_sort(plan.order.begin(), plan.order.end(), [&](int64_t x, int64_t y) {
      return hessian.matrix[x * weight.cols + x] > hessian.matrix[y * weight.cols + y];
    });
  }
  plan.factor = config.act_order
                    ? permuted_factor(hessian, plan.order, context.threads, context.accelerator)
                    : hessian.factor;
  plan.triangles = group_triangles(plan.factor, weight.cols, config.block_size);
  for (const float r : hessian.diagonal) plan.weights.push_back(r * r);
  code_tiles(
      context, kTileRows,
      [&](int64_t first_row) { TileCoder(weight, plan, config.act_order, &out).run(first_row); },
      &out);
  return out;
}

// Per row and group the min/max grid, and each weight its nearest code.
RegionCodes quantize_rtn_integers(const WeightView& weight, const MethodConfig& config,
                                  const QuantizeContext& context) {
  const int bits = integer_bits(config);
  RegionCodes out = make_region_codes(integer_shape(weight, config.block_size, bits));
  std::fill(out.region.begin(), out.region.end(), static_cast<uint8_t>(out.shape.integer_region()));
  parallel_for(weight.rows, context.threads, [&](int64_t row) {
    const float* w = weight.data + row * weight.cols;
    for (int64_t group = 0; group < out.shape.groups(); ++group) {
      const int64_t first = group * config.block_size;
      const int64_t end = std::min<int64_t>(weight.cols, first + config.block_size);
      const auto [low, high] = std::minmax_element(w + first, w + end);
      const AffineGrid grid = affine_grid(*low, *high, bits);
      out.step[out.step_index(group, row)] = grid.step;
      out.zero[out.step_index(group, row)] = grid.zero;
      for (int64_t col = first; col < end; ++col) {
        out.code[row * weight.cols + col] = nearest_code(grid, bits, w[col]);
      }
    }
  });
  return out;
}

// Codes, and of each group of a row a step in fp16 and a zero (docs/format.md).
double rate_bits_integers(const LayerSize& layer, const MethodConfig& config) {
  const auto bits = static_cast<int64_t>(config.bits);
  const int64_t weights = layer.rows * layer.cols;
  const int64_t steps = layer.rows * ((layer.cols + config.block_size - 1) / config.block_size);
  const int64_t bytes = (weights * bits + 7) / 8 + 2 * steps + (steps * bits + 7) / 8;
  return 8 * static_cast<double>(bytes) / static_cast<double>(weights);
}

double nominal_bits_gptq(const LayerCodes& layer) { return layer.regions().shape.integer_bits; }

}  // namespace billm
