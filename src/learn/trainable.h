// What the trainer learns: see docs/decisions/0007-tuning.md and trainer.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

namespace billm {

// Step sizes of the optimizer. They fall along the trainer's schedule.
struct LearnRates {
  double code = 0;  // of a latent, in units of the mean scale of a weight's row and group; 0: codes
                    // stay as they are
  double scale = 0;  // relative change of a scale; 0: scales stay
};

// A tensor that the optimizer moves, on the model's device. Its values are such that `rate` is the
// length of a step.
struct Parameter {
  std::string name;  // within its trainable
  at::Tensor value;
  double rate;
};

// Tensors by name: a state, as it is kept and stored.
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// Something whose dense weight follows from parameters. The gradient of a loss ends at that weight
// (LibTorch's autograd), what lies behind it is the trainable's own. `threads`: of the CPU; results
// do not depend on them.
class Trainable {
 public:
  virtual ~Trainable() = default;

  // Fixed in number, order and shape; may be empty.
  virtual std::vector<Parameter> parameters() = 0;

  // The present weight, exactly as the file would hold it. A new tensor without gradients.
  virtual at::Tensor weight(int threads) const = 0;

  // From the gradient of weight(), [as the weight], those of the parameters, in their order.
  // `weight`: what weight() returned.
  virtual std::vector<at::Tensor> gradients(const at::Tensor& weight, const at::Tensor& gradient,
                                            int threads) const = 0;

  // The parameters have moved.
  virtual void refresh(int threads) = 0;

  // What a file would hold of the present state, and back: after restore() the weight is the same
  // again, and there is no more learning.
  virtual NamedTensors state() const = 0;
  virtual void restore(const NamedTensors& state) = 0;
};

}  // namespace billm
