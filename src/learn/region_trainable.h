// Region codes as a trainable. Behind every kept weight stands a latent value, whose sign and
// magnitude say its code; class thresholds are the middles between the levels at the start (if they
// followed the learned scales, codes would flip with every move of a scale). The gradient of the
// dense weight goes to the latent unchanged (the straight-through estimator, Bengio et al. arXiv
// 1308.3432). Scales are learned as logarithms and rounded to their stored format before every use.
// The N:M mask, the salient columns and integer weights are frozen.
//
// Everything is done by ATen, on the device of the latents. On a CPU that is by tiles of rows,
// whose many small passes then stay in the cache; what an operation broadcasts is one operand only,
// and masks are numbers, since ATen has vector code for just these.
#pragma once

#include <cstdint>
#include <memory>

#include "billm/codes/region_codes.h"
#include "trainable.h"

namespace billm {

class RegionTrainable : public Trainable {
 public:
  // `original` [rows, cols] fp32, contiguous on the CPU: the weight that the codes stand for (not
  // looked at unless codes learn). Throws
  // Error{kUsage} where cannot_learn() says so, Error{kBadInput} as start_latents().
  RegionTrainable(const RegionCodes& codes, const at::Tensor& original, const LearnRates& rates,
                  double margin, c10::Device device, int threads);

  // latent [rows, cols], scale [R, rows, groups], column_scale [cols], as far as they are learned.
  std::vector<Parameter> parameters() override;
  at::Tensor weight(int threads) const override;
  std::vector<at::Tensor> gradients(const at::Tensor& weight, const at::Tensor& gradient,
                                    int threads) const override;
  void refresh(int threads) override;
  // "levels" [rows, cols] I8, +-(class + 1), only where codes are learned; "scale" and
  // "column_scale" as above, in their stored format.
  NamedTensors state() const override;
  void restore(const NamedTensors& state) override;

  // The codes of the present state.
  RegionCodes codes(int threads) const;

 private:
  struct Set;   // columns that share their classes: the ordinary ones or the salient ones
  struct Tile;  // rows of it

  int64_t tile_rows() const;
  template <typename Body>
  void for_tiles(int threads, const Body& body) const;
  Tile tile(int64_t first, int64_t rows) const;
  void refresh_scales();
  at::Tensor levels() const;  // as in state()

  const RegionCodes start_;
  const LearnRates rates_;
  const c10::Device device_;
  bool codes_learned_;
  // fp32 in units of the mean scale; or int8, +-(class + 1), where codes are not learned.
  at::Tensor latent_;
  at::Tensor threshold_;                           // [R, rows, groups]
  at::Tensor start_scale_, log_scale_, scale_;     // [R, rows, groups]; log: relative to the start
  at::Tensor start_column_, log_column_, column_;  // [cols]; undefined without column scales
  at::Tensor unit_;                                // [rows, groups]; undefined unless codes learn
  at::Tensor grid_, grid_borders_;                 // log8: [256] values, [255] between them
  at::Tensor kept_;  // [rows, cols] I8; undefined if nothing is pruned
  at::Tensor salient_, salient_group_, salient_sum_;  // [S'] columns, their groups, [S', groups]
  at::Tensor integer_at_, integer_value_;  // scattered: places in [rows * cols] and (c - z) * step
  std::vector<int64_t> integer_rows_;      // [rows + 1]: where the rows' integers begin
};

}  // namespace billm
