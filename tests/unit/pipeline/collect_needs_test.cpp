// What calibrating a block takes, counted by hand: passes with and without kept points, and when
// points are kept.
#include "src/pipeline/collect_needs.h"

#include <gtest/gtest.h>

#include "billm/model/model.h"
#include "support/environment.h"
#include "support/tiny_checkpoint.h"

namespace billm {
namespace {

const c10::Device kCpu(c10::kCPU);

class CollectNeedsTest : public testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_llama(directory_.path());
    spec_ = Model(directory_.path(), 1).spec();
    for (const std::string& group : spec_.groups()) {
      const GroupShape shape = spec_.group_shape(group);
      before_ = all_;
      all_ += static_cast<double>(shape.rows * shape.cols);
      to_groups_ += before_;
    }
  }
  static MethodConfig config(Targets targets) {
    MethodConfig config("gptq");
    config.targets = targets;
    return config;
  }
  CollectNeeds needs(Targets targets, bool sequential, bool tuned, bool keeps) const {
    return collect_needs(spec_, config(targets), sequential, tuned, keeps);
  }

  test::TemporaryDirectory directory_;
  ModelSpec spec_;
  // Weights of all groups, of those before the last, and before each of them in sum.
  double all_ = 0, before_ = 0, to_groups_ = 0;
};

TEST_F(CollectNeedsTest, Passes) {
  struct Case {
    Targets targets;
    bool sequential, tuned, keeps;
    double weights, attention;
  };
  const Case cases[] = {
      // All groups at once, then on.
      {Targets::kOwn, false, false, false, 2 * all_, 2},
      {Targets::kOwn, false, true, false, 2 * all_, 2},
      // Up to each group, then on; the attention lies before three of them.
      {Targets::kOwn, true, false, false, to_groups_ + all_, 4},
      {Targets::kCorrected, true, false, false, 2 * (to_groups_ + all_), 8},
      // Up to the last group and on.
      {Targets::kOwn, true, false, true, all_, 1},
      {Targets::kCorrected, true, false, true, 2 * all_, 2},
      // On from the start, once the linears are tuned; the originals' pass is the tuning's.
      {Targets::kOwn, true, true, true, before_ + all_, 2},
      {Targets::kCorrected, true, true, true, before_ + all_, 2},
  };
  for (const Case& c : cases) {
    const CollectNeeds found = needs(c.targets, c.sequential, c.tuned, c.keeps);
    EXPECT_EQ(found.passed_weights, c.weights) << &c - cases;
    EXPECT_EQ(found.passed_attention, c.attention) << &c - cases;
  }
}

TEST_F(CollectNeedsTest, Points) {
  const int64_t widest = std::max(spec_.config.intermediate_size, spec_.config.hidden_size);
  const int64_t one = 4 * (widest + spec_.config.hidden_size);
  EXPECT_EQ(point_bytes(spec_, config(Targets::kOwn), false), 0);
  EXPECT_EQ(point_bytes(spec_, config(Targets::kOwn), true), one);
  EXPECT_EQ(point_bytes(spec_, config(Targets::kCorrected), true), 2 * one);

  constexpr int64_t kLittle = 1 << 10, kMuch = int64_t{1} << 60;
  const auto keeps = [&](int64_t hidden, int64_t points, HiddenPlace place) {
    return keeps_points(hidden, points, place, spec_, kCpu, 1);
  };
  EXPECT_TRUE(keeps(kLittle, kLittle, HiddenPlace::kMemory));
  EXPECT_FALSE(keeps(kLittle, 0, HiddenPlace::kMemory));  // not asked for
  EXPECT_FALSE(keeps(kLittle, kMuch, HiddenPlace::kMemory));
  EXPECT_FALSE(keeps(kLittle, kLittle, HiddenPlace::kDisk));
  EXPECT_FALSE(keeps(kLittle, kLittle, HiddenPlace::kDevice));  // passes run on the CPU
}

}  // namespace
}  // namespace billm
