// TunableBlock: a block whose linears (LatentLinear) and norm weights can be learned, and what both
// tuners share: the schedule of the rates and the order of the windows.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "billm/model/block.h"
#include "billm/learn/tune_block.h"
#include "latent_linear.h"

namespace billm {

// A vector of norm weights, learned by Adam in fp32 and used as its file will store it.
class LatentNorm {
 public:
  LatentNorm(const at::Tensor& weight, at::ScalarType dtype);  // [hidden], any device
  at::Tensor weight() const;                                   // a copy, on the CPU
  void step(const at::Tensor& gradient, double rate);  // `rate`: in units of the mean magnitude

 private:
  at::ScalarType dtype_;
  at::Tensor latent_, mean_, square_;
  double unit_;
  int steps_ = 0;
};

struct StepRates {
  TuneRates linear;
  double norm = 0;
};

class TunableBlock {
 public:
  TunableBlock(const Block& block, const std::map<std::string, TunedLinear>& linears,
               const NormTypes& types, double margin);

  // The present block over shared memory, on `device`. With gradients, every call makes leaves of
  // its own, so that several threads may differentiate at once.
  Block leaves(c10::Device device, bool gradients);
  // The leaves in the order in which step() takes their gradients.
  static std::vector<at::Tensor> variables(const Block& leaves);
  void step(const std::vector<at::Tensor>& gradients, const StepRates& rates, int threads);

  // Copies the present state out: norm weights into `block` (on `device`), codes into `linears`;
  // with `decoded` the block's linears, too.
  void store(c10::Device device, Block* block, std::map<std::string, TunedLinear>* linears,
             bool decoded);

 private:
  Block fixed_;  // what is not learned
  std::map<std::string, LatentNorm> norms_;
  std::map<std::string, LatentLinear> latents_;
};

// Warm-up over a few steps, then a cosine down to 0: in [0, 1], step from 1 to steps.
double rate_at(int step, int steps);

// The loop of both tuners: `train` makes one step; `held_out` is measured before the first and
// kTuneChecks times along the way; `keep` stores the present state, the best so far. Does not set
// TuneReport::seconds.
TuneReport learn(int steps, const std::function<void(int step)>& train,
                 const std::function<double()>& held_out, const std::function<void()>& keep);

// Mean of the windows' losses, each weighted by its tokens. Throws Error{kFailure} naming `flag` if
// it is not finite.
double mean_loss(const std::vector<double>& losses, const std::vector<int64_t>& tokens,
                 const std::string& flag);

// Adds the gradients of all windows to those of the first, in order.
void add_to_first(std::vector<std::vector<at::Tensor>>* gradients);

// Indices 0..count-1 in an order that is shuffled anew on every pass.
class Order {
 public:
  Order(size_t count, uint64_t seed);
  std::vector<size_t> next(size_t count);  // at most as many as there are

 private:
  std::vector<size_t> order_;
  size_t next_ = 0;
  std::mt19937_64 random_;
};

}  // namespace billm
