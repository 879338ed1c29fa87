// A block whose linears and norm weights are trainables: what both stages train.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "billm/learn/tune_block.h"
#include "billm/model/block.h"
#include "layer_trainable.h"
#include "norm_trainable.h"
#include "trainer.h"

namespace billm {

class TrainableBlock {
 public:
  // `block`: whose norms learn, and whose linears stay where `linears` does not have them; on the
  // model's device.
  TrainableBlock(const Block& block, const std::map<std::string, TunedLinear>& linears,
                 const NormTypes& types, const LearnRates& rates, double norm_rate, double margin,
                 c10::Device device, int threads);

  // Before the trainer runs; names begin with `prefix`. Of several blocks each once.
  void add_to(Trainer& trainer, const std::string& prefix);

  // The block with the present weights, without gradients.
  Block present(int threads) const;
  // The same weights as leaves whose gradients are wanted: one such block for each window, so that
  // several threads may differentiate at once.
  Block leaves(const Block& present) const;
  // The leaves, in the order in which update() takes their gradients.
  std::vector<at::Tensor> variables(const Block& leaves) const;
  void update(Trainer& trainer, const Block& present, const std::vector<at::Tensor>& gradients);

  // Copies the present state out: norm weights into `block`, codes into `linears`.
  void store(Block* block, std::map<std::string, TunedLinear>* linears, int threads) const;

 private:
  Block fixed_;  // what is not learned
  std::map<std::string, std::unique_ptr<NormTrainable>> norms_;
  std::map<std::string, std::unique_ptr<LayerTrainable>> linears_;
  size_t first_ = 0;  // the trainer's number of the first norm; then the linears
};

}  // namespace billm
