// The one loop that learns: block tuning and distillation are stages of it, which differ in what
// they put in (trainables, a loss, batches) and in nothing else. See docs/decisions/0007-tuning.md.
//
// A step: the stage's loss and gradients on the windows that the trainer chose, each parameter
// moved by AdamW, rates along a short warm-up and a cosine. The held-out loss is measured before
// the first step and kTuneChecks times along the way; the best state is kept. The result depends on
// what was put in alone, not on threads; a run that was stored after any step and goes on from
// there has the same result to the bit.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "adamw.h"
#include "billm/learn/config.h"
#include "billm/learn/training_state.h"
#include "trainable.h"

namespace billm {

class Trainer;

class Stage {
 public:
  virtual ~Stage() = default;
  // Gives the gradients of the mean loss of the training windows `chosen` to trainer.update(), once
  // for each trainable. Returns that loss.
  virtual double train(const std::vector<size_t>& chosen, Trainer& trainer) = 0;
  // Mean loss of the present state on the windows that are never trained on.
  virtual double held_out() = 0;
  // Whether the present state may be the best one, however low its held-out loss.
  virtual bool may_be_kept() { return true; }
};

class Trainer {
 public:
  // `windows`: how many there are to train on; `batch` of them are a step's.
  Trainer(int steps, size_t windows, int batch, uint64_t seed, int threads);

  // `trainable` must outlive this. Returns its number, from 0. `name` is unique.
  size_t add(const std::string& name, Trainable* trainable);

  // Within Stage::train(): moves the parameters of trainable `number`, whose present weight is
  // `weight`, against the gradient of the loss.
  void update(size_t number, const at::Tensor& weight, const at::Tensor& gradient);

  // All steps that are left. Afterwards the trainables have the best state, or, where best_step is
  // 0, are to be left aside: nothing was gained. `after`, if set, is called after every step.
  // Does not set TuneReport::seconds.
  TuneReport run(Stage& stage, const std::function<void(int step, double loss)>& after = {});

  // Losses of the steps so far, each before the step.
  const std::vector<double>& losses() const { return losses_; }

  // What run() goes on from: parameters, moments, the best state and the losses. Between steps
  // (within `after`), or before run().
  TrainingState state() const;
  // Throws Error{kBadInput} naming `where` unless it is the state of a run with the same trainables
  // and no more steps.
  void restore(const TrainingState& state, const std::string& where);

 private:
  struct Entry {
    std::string name;
    Trainable* trainable;
    AdamW optimizer;
    NamedTensors best;
  };

  double rate() const;  // of the present step, in [0, 1]

  const int steps_, threads_;
  const size_t batch_;
  class Order {  // of windows, shuffled anew on every pass
   public:
    Order(size_t count, uint64_t seed);
    std::vector<size_t> next(size_t count);  // at most as many as there are

   private:
    std::vector<size_t> order_;
    size_t next_ = 0;
    std::mt19937_64 random_;
  } order_;
  int step_ = 0;
  bool started_ = false;  // report_ has the loss before the first step
  TuneReport report_;
  std::vector<double> losses_;
  std::vector<Entry> entries_;
};

// What stages share.

// Mean of the windows' losses, each weighted by its tokens. Throws Error{kFailure} naming `flag` if
// it is not finite.
double mean_loss(const std::vector<double>& losses, const std::vector<int64_t>& tokens,
                 const std::string& flag);

// Adds the gradients of all windows to those of the first, in order.
void add_to_first(std::vector<std::vector<at::Tensor>>* gradients);

// How many of `windows`, the last ones, are held out. Throws Error{kUsage} naming `flag` and what
// to do about it unless one is left for training.
size_t held_out_windows(size_t windows, const std::string& flag, const std::string& hint);

}  // namespace billm
