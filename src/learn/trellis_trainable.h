// Codes on a trellis as a trainable: the scales of rows are learned, as logarithms and rounded to
// fp16 before every use; the paths stay as they are.
#pragma once

#include "billm/codes/trellis.h"
#include "trainable.h"

namespace billm {

class TrellisTrainable : public Trainable {
 public:
  TrellisTrainable(const TrellisCodes& codes, const LearnRates& rates, c10::Device device,
                   int threads);

  // scale [rows], if scales are learned.
  std::vector<Parameter> parameters() override;
  at::Tensor weight(int threads) const override;
  std::vector<at::Tensor> gradients(const at::Tensor& weight, const at::Tensor& gradient,
                                    int threads) const override;
  void refresh(int threads) override;
  // "scale" [rows], as stored.
  NamedTensors state() const override;
  void restore(const NamedTensors& state) override;

  // The codes of the present state.
  TrellisCodes codes() const;

 private:
  const TrellisCodes start_;
  const LearnRates rates_;
  const c10::Device device_;
  at::Tensor values_;                           // [rows, cols]: the weight without scales
  at::Tensor start_scale_, log_scale_, scale_;  // [rows]; log: relative to the start
};

}  // namespace billm
