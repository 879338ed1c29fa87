// A vector of norm weights as a trainable: learned in fp32, used as its file will store it.
#pragma once

#include "trainable.h"

namespace billm {

class NormTrainable : public Trainable {
 public:
  // weight [hidden] fp32, on the model's device; dtype: of the file. `rate`: in units of the mean
  // magnitude; 0: they stay.
  NormTrainable(const at::Tensor& weight, at::ScalarType dtype, double rate);

  std::vector<Parameter> parameters() override;
  at::Tensor weight(int threads) const override;
  std::vector<at::Tensor> gradients(const at::Tensor& weight, const at::Tensor& gradient,
                                    int threads) const override;
  void refresh(int threads) override;
  NamedTensors state() const override;  // "weight" [hidden] fp32
  void restore(const NamedTensors& state) override;

 private:
  const at::ScalarType dtype_;
  const double rate_, unit_;
  at::Tensor start_, move_, weight_;  // [hidden]; move: in units
};

}  // namespace billm
