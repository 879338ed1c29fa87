// LatentLinear: a quantized linear layer whose codes, scales and column scales can be learned from
// the gradient of its decoded weights. Torch-free.
//
// Every kept weight has a latent value, whose sign and magnitude say its code (the class thresholds
// are the middles between the levels at the start; if they followed the learned scales, codes would
// flip with every move of a scale). The gradient of the decoded weight is passed to the latent
// unchanged (the straight-through estimator, Bengio et al. arXiv 1308.3432). Scales are learned as
// logarithms and rounded to their stored format before every use, so that what is tuned is what the
// file will say. The N:M mask, the salient columns and integer weights are frozen.
#pragma once

#include <cstdint>
#include <vector>

#include "billm/codes/region_codes.h"

namespace billm {

// Adam's step sizes (Kingma & Ba, arXiv 1412.6980). `code` is in units of the mean scale of a
// weight's row and block; `scale` is the relative change of a scale.
struct TuneRates {
  double code = 0, scale = 0;
};

class LatentLinear {
 public:
  // `weight` [rows, cols]: the original. A latent starts at the original weight, moved just inside
  // the cell of its code where it lies outside. Throws Error{kBadInput} unless levels are
  // positive and grow, Error{kUsage} for layers with offsets and
  // layers of integers only.
  LatentLinear(const RegionCodes& codes, const float* weight, double margin);

  int64_t rows() const { return codes_.shape.rows; }
  int64_t cols() const { return codes_.shape.cols; }
  // Decoded weights [rows, cols] of the present codes and scales.
  float* weight() { return weight_.data(); }

  // One step of Adam against `gradient` [rows, cols] (of weight()); codes and weight() follow.
  // The same result at any thread count.
  void step(const float* gradient, const TuneRates& rates, int threads);

  // The present codes and scales.
  const RegionCodes& codes() const { return codes_; }

 private:
  struct Moments {
    std::vector<float> mean, square;
    void resize(size_t size) {
      mean.assign(size, 0.0f);
      square.assign(size, 0.0f);
    }
  };
  struct Adam;   // step sizes of one step
  struct Cells;  // of one row, block and column set

  // Pruned and integer weights stay as they are.
  bool frozen(int region) const {
    return region == kPrunedRegion || region > codes_.shape.regions();
  }
  Cells cells(int64_t block, int64_t row, bool salient) const;
  void start_row(int64_t row, const float* weight, double margin);
  void step_row(int64_t row, const float* gradient, const Adam& adam, double* column_gradient);
  void encode_row(int64_t row);
  void round_scales(int64_t block, int64_t row);

  RegionCodes codes_;
  std::vector<float> weight_;      // [rows, cols]
  std::vector<float> latent_;      // [rows, cols], without the column scale
  std::vector<float> log_scale_;   // as codes_.scale
  std::vector<float> log_column_;  // [cols]; empty without column scales
  std::vector<float> threshold_;   // as codes_.scale: between a class and the next of its set
  std::vector<float> unit_;        // [blocks, rows]: mean scale at the start
  Moments latent_moments_, scale_moments_, column_moments_;
  int64_t steps_ = 0;
};

}  // namespace billm
