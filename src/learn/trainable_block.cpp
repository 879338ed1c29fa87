// See trainable_block.h.
#include "trainable_block.h"

#include <utility>

namespace billm {

TrainableBlock::TrainableBlock(const Block& block,
                               const std::map<std::string, TunedLinear>& linears,
                               const NormTypes& types, const LearnRates& rates, double norm_rate,
                               double margin, c10::Device device, int threads)
    : fixed_(block) {
  fixed_.norms.clear();
  for (const auto& [suffix, weight] : block.norms) {
    norms_[suffix] = std::make_unique<NormTrainable>(weight, types.at(suffix), norm_rate);
  }
  for (const auto& [suffix, linear] : linears) {
    fixed_.linears.erase(suffix);
    linears_[suffix] = std::make_unique<LayerTrainable>(linear.codes, linear.original, rates,
                                                        margin, device, threads);
  }
}

void TrainableBlock::add_to(Trainer& trainer, const std::string& prefix) {
  bool first = true;
  const auto add = [&](const std::string& suffix, Trainable* trainable) {
    const size_t number = trainer.add(prefix + suffix, trainable);
    if (std::exchange(first, false)) first_ = number;
  };
  for (const auto& [suffix, norm] : norms_) add(suffix, norm.get());
  for (const auto& [suffix, linear] : linears_) add(suffix, linear.get());
}

Block TrainableBlock::present(int threads) const {
  Block block = fixed_;
  for (const auto& [suffix, norm] : norms_) block.norms[suffix] = norm->weight(threads);
  for (const auto& [suffix, linear] : linears_) block.set_weight(suffix, linear->weight(threads));
  return block;
}

Block TrainableBlock::leaves(const Block& present) const {
  Block block = fixed_;
  for (const auto& [suffix, weight] : present.norms) {
    block.norms[suffix] = weight.detach().set_requires_grad(true);
  }
  for (const auto& [suffix, linear] : linears_) {
    block.set_weight(suffix, present.weight(suffix).detach().set_requires_grad(true));
  }
  return block;
}

std::vector<at::Tensor> TrainableBlock::variables(const Block& leaves) const {
  std::vector<at::Tensor> variables;
  for (const auto& [suffix, weight] : leaves.norms) variables.push_back(weight);
  for (const auto& [suffix, linear] : linears_) variables.push_back(leaves.weight(suffix));
  return variables;
}

void TrainableBlock::update(Trainer& trainer, const Block& present,
                            const std::vector<at::Tensor>& gradients) {
  const std::vector<at::Tensor> weights = variables(present);
  for (size_t i = 0; i < weights.size(); ++i) trainer.update(first_ + i, weights[i], gradients[i]);
}

void TrainableBlock::store(Block* block, std::map<std::string, TunedLinear>* linears,
                           int threads) const {
  for (const auto& [suffix, norm] : norms_) block->norms[suffix] = norm->weight(threads);
  for (auto& [suffix, linear] : *linears) linear.codes = linears_.at(suffix)->codes(threads);
}

}  // namespace billm
