// The trainer on a problem whose loss is known: the best state comes back, and a run that was
// stored after any step and goes on has the same result to the bit.
#include "../../../src/learn/trainer.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <optional>

#include "../../../src/learn/norm_trainable.h"
#include "billm/base/error.h"
#include "billm/model/runtime.h"
#include "support/environment.h"

namespace billm {
namespace {

constexpr int kSteps = 10;

// Two vectors are to become what each window wants, |w - target|^2 / 2; on the held-out window as
// `spoil` says, the optimum lies elsewhere, so that later steps lose what earlier ones gained.
class Vectors : public Stage {
 public:
  explicit Vectors(double goal)
      : a(at::arange(1, 9, at::kFloat), at::kHalf, 0.1),
        b(at::arange(1, 6, at::kFloat), at::kFloat, 0.05),
        goal_(goal) {}
  double train(const std::vector<size_t>& chosen, Trainer& trainer) override {
    windows.insert(windows.end(), chosen.begin(), chosen.end());
    double loss = 0;
    for (NormTrainable* vector : {&a, &b}) {
      const at::Tensor weight = vector->weight(1);
      at::Tensor gradient = at::zeros(weight.sizes(), weight.options());
      for (const size_t window : chosen) {
        const at::Tensor error = weight.sub(10.0 + static_cast<double>(window));
        gradient.add_(error);
        loss += 0.5 * error.square().sum().item<double>();
      }
      trainer.update(vector == &a ? 0 : 1, weight, gradient);
    }
    return loss;
  }
  double held_out() override {
    return a.weight(1).sub(goal_).square().sum().item<double>() +
           b.weight(1).sub(goal_).square().sum().item<double>();
  }
  NormTrainable a, b;
  std::vector<size_t> windows;

 private:
  const double goal_;
};

struct Training {
  explicit Training(double goal, const TrainingState* from = nullptr, int stop = kSteps)
      : stage(goal), trainer(kSteps, 5, 2, 3, 1) {
    init_torch();
    trainer.add("a", &stage.a);
    trainer.add("b", &stage.b);
    if (from != nullptr) trainer.restore(*from, "state");
    struct Stop {};
    try {
      report = trainer.run(stage, [&](int step, double) {
        if (step < stop || step == kSteps) return;
        stored = trainer.state();
        for (auto& [name, tensor] : stored->tensors) tensor = tensor.clone();
        throw Stop();
      });
    } catch (const Stop&) {
    }
  }
  Vectors stage;
  Trainer trainer;
  TuneReport report;
  std::optional<TrainingState> stored;
};

TEST(Trainer, GoesOnFromAnyStepToTheSameBits) {
  for (const double goal : {20.0, 5.1}) {
    Training whole(goal);
    EXPECT_EQ(whole.trainer.losses().size(), static_cast<size_t>(kSteps));
    EXPECT_GT(whole.report.best_step, 0);
    for (int stop = 1; stop < kSteps; ++stop) {
      Training first(goal, nullptr, stop);
      ASSERT_TRUE(first.stored.has_value());
      const test::TemporaryDirectory directory;
      const std::filesystem::path path = directory.path() / "state.safetensors";
      EXPECT_EQ(write_training_state(path, *first.stored).size(), 64u);
      const TrainingState read = read_training_state(path);
      Training second(goal, &read);
      EXPECT_EQ(second.trainer.losses(), whole.trainer.losses());
      EXPECT_EQ(second.report.best_step, whole.report.best_step);
      EXPECT_EQ(second.report.loss_after, whole.report.loss_after);
      EXPECT_TRUE(second.stage.a.weight(1).equal(whole.stage.a.weight(1)));
      EXPECT_TRUE(second.stage.b.weight(1).equal(whole.stage.b.weight(1)));
      std::vector<size_t> windows = first.stage.windows;
      windows.insert(windows.end(), second.stage.windows.begin(), second.stage.windows.end());
      EXPECT_EQ(windows, whole.stage.windows);
    }
  }
}

TEST(Trainer, KeepsTheBestStateOrNone) {
  Training spoiled(5.1);  // passed by the mean of `a`, 4.5 at the start, before the middle
  EXPECT_LT(spoiled.report.best_step, kSteps);
  EXPECT_GT(spoiled.report.best_step, 0);
  EXPECT_EQ(spoiled.stage.held_out(), spoiled.report.loss_after);
  Training worse(-5);
  EXPECT_EQ(worse.report.best_step, 0);
  EXPECT_EQ(worse.report.loss_after, worse.report.loss_before);
}

TEST(Trainer, EveryWindowComesOnceInAPass) {
  Training run(20);
  for (size_t pass = 0; pass < 4; ++pass) {
    std::vector<int> seen(5, 0);
    for (size_t i = 0; i < 5; ++i) ++seen[run.stage.windows[pass * 5 + i]];
    EXPECT_EQ(seen, std::vector<int>(5, 1));
  }
}

TEST(Trainer, RefusesAnotherRunsState) {
  const TrainingState state = *Training(20, nullptr, 4).stored;
  const auto refuses = [&](const auto& change) {
    TrainingState other = state;
    change(other);
    EXPECT_THROW(Training(20, &other), Error);
  };
  refuses([](TrainingState& s) { s.step = kSteps + 1; });
  refuses([](TrainingState& s) { s.losses.pop_back(); });
  refuses([](TrainingState& s) { s.tensors.erase("a.weight.mean"); });
  refuses([](TrainingState& s) { s.tensors["b.weight"] = at::zeros({6}, at::kFloat); });
}

}  // namespace
}  // namespace billm
