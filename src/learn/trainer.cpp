// See trainer.h.
#include "trainer.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "billm/base/error.h"

namespace billm {
namespace {

constexpr const char* kBest = ".best.";

Error wrong_state(const std::string& where, const std::string& what) {
  return bad_input(where + ": " + what, "start again with --overwrite");
}

}  // namespace

Trainer::Trainer(int steps, size_t windows, int batch, uint64_t seed, int threads)
    : steps_(steps), threads_(threads), batch_(static_cast<size_t>(batch)), order_(windows, seed) {}

size_t Trainer::add(const std::string& name, Trainable* trainable) {
  entries_.push_back({name, trainable, AdamW(trainable->parameters()), {}});
  return entries_.size() - 1;
}

void Trainer::update(size_t number, const at::Tensor& weight, const at::Tensor& gradient) {
  Entry& entry = entries_[number];
  entry.optimizer.step(entry.trainable->gradients(weight, gradient, threads_), step_, rate(),
                       threads_);
  entry.trainable->refresh(threads_);
}

double Trainer::rate() const {
  constexpr int kWarmup = 4;
  const double progress = (step_ - 0.5) / steps_;
  return std::min(1.0, static_cast<double>(step_) / kWarmup) * 0.5 *
         (1 + std::cos(std::numbers::pi * progress));
}

TuneReport Trainer::run(Stage& stage, const std::function<void(int step, double loss)>& after) {
  if (!started_) {
    report_.loss_before = report_.loss_after = stage.held_out();
    started_ = true;
  }
  while (step_ < steps_) {
    ++step_;
    losses_.push_back(stage.train(order_.next(batch_), *this));
    if (step_ * int64_t{kTuneChecks} / steps_ != (step_ - 1) * int64_t{kTuneChecks} / steps_) {
      const double loss = stage.held_out();
      if (loss < report_.loss_after && stage.may_be_kept()) {
        report_.loss_after = loss;
        report_.best_step = step_;
        for (Entry& entry : entries_) {
          entry.best = entry.trainable->state();
        }
      }
    }
    if (after) after(step_, losses_.back());
  }
  if (report_.best_step > 0) {
    for (Entry& entry : entries_) entry.trainable->restore(entry.best);
  }
  return report_;
}

TrainingState Trainer::state() const {
  TrainingState state = {step_, report_, losses_, {}};
  for (const Entry& entry : entries_) {
    for (const auto& [name, tensor] : entry.optimizer.state()) {
      state.tensors[entry.name + "." + name] = tensor;
    }
    for (const auto& [name, tensor] : entry.best) state.tensors[entry.name + kBest + name] = tensor;
  }
  return state;
}

void Trainer::restore(const TrainingState& state, const std::string& where) {
  const at::NoGradGuard no_grad;
  if (state.step < 1 || state.step > steps_ || state.report.best_step < 0 ||
      state.report.best_step > state.step ||
      state.losses.size() != static_cast<size_t>(state.step)) {
    throw wrong_state(where, "expected the state of one of " + std::to_string(steps_) +
                                 " steps, got step " + std::to_string(state.step));
  }
  const auto find = [&](const std::string& name) {
    const auto found = state.tensors.find(name);
    if (found == state.tensors.end()) throw wrong_state(where, name + ": expected, not found");
    return found->second;
  };
  for (Entry& entry : entries_) {
    for (auto& [name, tensor] : entry.optimizer.state()) {
      const at::Tensor stored = find(entry.name + "." + name);
      if (stored.sizes() != tensor.sizes() || stored.scalar_type() != tensor.scalar_type()) {
        throw wrong_state(where, entry.name + "." + name + ": expected another shape or type");
      }
      tensor.copy_(stored);
    }
    entry.best.clear();
    for (const auto& [name, tensor] : entry.trainable->state()) {
      if (state.report.best_step == 0) break;
      const at::Tensor stored = find(entry.name + kBest + name);
      if (stored.sizes() != tensor.sizes() || stored.scalar_type() != tensor.scalar_type()) {
        throw wrong_state(where, entry.name + kBest + name + ": expected another shape or type");
      }
      entry.best.emplace_back(name, stored.to(tensor.device()));
    }
    entry.trainable->refresh(threads_);
  }
  for (int step = step_; step < state.step; ++step) order_.next(batch_);
  step_ = state.step;
  report_ = state.report;
  losses_ = state.losses;
  started_ = true;
}

Trainer::Order::Order(size_t count, uint64_t seed) : order_(count), random_(seed) {
  for (size_t i = 0; i < count; ++i) order_[i] = i;
}

std::vector<size_t> Trainer::Order::next(size_t count) {
  std::vector<size_t> chosen;
  count = std::min(count, order_.size());
  while (chosen.size() < count) {
    if (next_ == 0) {
      for (size_t i = order_.size() - 1; i > 0; --i) {  // std::shuffle differs by library
        std::swap(order_[i], order_[random_() % (i + 1)]);
      }
    }
    chosen.push_back(order_[next_]);
    next_ = (next_ + 1) % order_.size();
  }
  return chosen;
}

double mean_loss(const std::vector<double>& losses, const std::vector<int64_t>& tokens,
                 const std::string& flag) {
  double sum = 0, weight = 0;
  for (size_t i = 0; i < losses.size(); ++i) {
    sum += static_cast<double>(tokens[i]) * losses[i];
    weight += static_cast<double>(tokens[i]);
  }
  if (!std::isfinite(sum)) {
    throw Error(ErrorCode::kFailure, flag + ": the held-out loss is not finite",
                "lower its rates, or leave it out");
  }
  return sum / weight;
}

void add_to_first(std::vector<std::vector<at::Tensor>>* gradients) {
  std::vector<at::Tensor>& sum = gradients->front();
  for (size_t i = 1; i < gradients->size(); ++i) {
    for (size_t v = 0; v < sum.size(); ++v) sum[v].add_((*gradients)[i][v]);
  }
}

size_t held_out_windows(size_t windows, const std::string& flag, const std::string& hint) {
  if (windows < 2) {
    throw Error(ErrorCode::kUsage, flag + ": expected at least two windows of calibration text",
                hint);
  }
  return std::max<size_t>(1, windows / 8);
}

}  // namespace billm
