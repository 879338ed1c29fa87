// A linear layer as a trainable: its weight is the product of its factors, each of which learns
// what it has. Gradients reach the factors through the product by autograd.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "billm/codes/layer_codes.h"
#include "device_rotation.h"
#include "region_trainable.h"
#include "trellis_trainable.h"

namespace billm {

class LayerTrainable : public Trainable {
 public:
  // `original` [rows, cols] fp32, contiguous on the CPU: the weight that the layer stands for (not
  // looked at unless codes learn). The latents of one factor of several start at what the others
  // would have it be, by least squares. Throws as RegionTrainable does.
  LayerTrainable(const LayerCodes& codes, const at::Tensor& original, const LearnRates& rates,
                 double margin, c10::Device device, int threads);

  std::vector<Parameter> parameters() override;
  at::Tensor weight(int threads) const override;
  std::vector<at::Tensor> gradients(const at::Tensor& weight, const at::Tensor& gradient,
                                    int threads) const override;
  void refresh(int threads) override;
  NamedTensors state() const override;
  void restore(const NamedTensors& state) override;

  // The codes of the present state.
  LayerCodes codes(int threads) const;

 private:
  // One of the three.
  struct Part {
    std::unique_ptr<RegionTrainable> planes;
    std::unique_ptr<TrellisTrainable> trellis;
    std::optional<DeviceRotation> rotation;
    // What learns, with a matrix; null: the rotation.
    Trainable* matrix() const;
  };

  // The layer's weight from the matrices of its factors, in their order.
  at::Tensor product(std::span<const at::Tensor> matrices) const;

  LayerCodes start_;
  std::vector<Part> parts_;  // as the factors
};

}  // namespace billm
