// HiddenStates: the same states wherever they are kept, and back from their files; Background:
// errors come where the work is waited for; available_memory().
#include "src/pipeline/hidden_states.h"

#include <ATen/ops/add.h>
#include <ATen/ops/rand.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <thread>

#include "billm/base/error.h"
#include "billm/base/memory.h"
#include "billm/base/sha256.h"
#include "billm/model/runtime.h"
#include "src/pipeline/background.h"
#include "support/environment.h"

namespace billm {
namespace {

const c10::Device kCpu(c10::kCPU);
constexpr int64_t kTokens = 5, kWidth = 7;

std::vector<at::Tensor> random_states(int64_t count) {
  std::vector<at::Tensor> states;
  for (int64_t i = 0; i < count; ++i) states.push_back(at::rand({kTokens, kWidth}));
  return states;
}

HiddenShape shape_of(int64_t count) {
  HiddenShape shape{{}, kTokens, kWidth};
  for (int64_t i = 0; i < count; ++i) shape.ids.push_back(3 * i + 1);
  return shape;
}

void expect_states(const HiddenStates& hidden, const std::vector<at::Tensor>& expected) {
  ASSERT_EQ(hidden.count(), static_cast<int64_t>(expected.size()));
  const std::vector<at::Tensor> all = hidden.load_all();
  for (int64_t i = 0; i < hidden.count(); ++i) {
    EXPECT_EQ(hidden.tokens(i), kTokens);
    EXPECT_TRUE(hidden.load(i).equal(expected[static_cast<size_t>(i)])) << i;
    EXPECT_TRUE(all[static_cast<size_t>(i)].equal(expected[static_cast<size_t>(i)])) << i;
  }
}

TEST(HiddenStates, TheSameInMemoryAndOnDiskAndBackFromFiles) {
  init_torch();
  for (const HiddenPlace place : {HiddenPlace::kMemory, HiddenPlace::kDisk}) {
    for (const int64_t count : {0, 1, 8, 11}) {
      SCOPED_TRACE(std::string(hidden_place_name(place)) + " " + std::to_string(count));
      const test::TemporaryDirectory directory;
      std::vector<at::Tensor> states = random_states(count);
      HiddenStates hidden(directory.path(), shape_of(count), place, kCpu);
      hidden.replace(
          "hidden-0",
          [&](int64_t first, int64_t some, const auto& take) {
            for (int64_t i = first; i < first + some; ++i) take(i, states[static_cast<size_t>(i)]);
          },
          3);
      expect_states(hidden, states);
      // The next ones are made of those that are there, one by one.
      hidden.replace(
          "hidden-1",
          [&](int64_t first, int64_t some, const auto& take) {
            for (int64_t i = first; i < first + some; ++i) take(i, hidden.load(i).add(1));
          },
          3);
      for (at::Tensor& state : states) state = state.add(1);
      expect_states(hidden, states);

      const std::vector<WrittenFile> files = hidden.save("hidden-1", 2);
      for (const WrittenFile& file : files) {
        EXPECT_EQ(sha256_file(directory.path() / file.name), file.sha256);
      }
      EXPECT_EQ(hidden.files().empty(), place == HiddenPlace::kMemory);
      for (const HiddenPlace other : {HiddenPlace::kMemory, HiddenPlace::kDisk}) {
        HiddenStates back(directory.path(), shape_of(count), other, kCpu);
        back.open(files);
        expect_states(back, states);
        EXPECT_EQ(back.files().empty(), other == HiddenPlace::kMemory || files.empty());
      }
      if (count == 0) continue;
      HiddenStates more(directory.path(), shape_of(count + 1), HiddenPlace::kMemory, kCpu);
      EXPECT_THROW(more.open(files), Error);
      HiddenStates originals(directory.path(), shape_of(count), HiddenPlace::kMemory, kCpu,
                             kOriginalStream);
      EXPECT_THROW(originals.open(files), Error);
    }
  }
}

TEST(HiddenStates, FilesThatCannotBeWrittenAreAnError) {
  init_torch();
  EXPECT_THROW(
      save_states("/dev/null/none", "x", kQuantizedStream, shape_of(3), random_states(3), 2),
      Error);
}

TEST(Background, ErrorsComeOnceWhereTheWorkIsWaitedFor) {
  const auto fails = [] { throw Error(ErrorCode::kFailure, "no space"); };
  Background background;
  EXPECT_NO_THROW(background.wait());
  EXPECT_NO_THROW(background.check());
  background.start(fails);
  EXPECT_THROW(background.wait(), Error);
  EXPECT_NO_THROW(background.wait());
  background.start(fails);
  EXPECT_THROW(background.start([] {}), Error);
  background.start(fails);
  EXPECT_THROW(
      while (true) {
        background.check();
        std::this_thread::yield();
      },
      Error);
  std::atomic<bool> go = false, done = false;
  background.start([&] {
    go.wait(false);
    done = true;
  });
  background.check();  // does not wait, or this would hang
  EXPECT_FALSE(done);
  go = true;
  go.notify_all();
  background.wait();
  EXPECT_TRUE(done);
  {
    Background ends;
    ends.start([&] { done = false; });
  }
  EXPECT_FALSE(done);  // the destructor has waited
}

TEST(FreeMemory, IsBoundByTheLimitOfTheProcess) {
  const int64_t free = available_memory();
  EXPECT_GT(free, 0);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_DATA, &before), 0);
  rlimit lower = before;
  lower.rlim_cur = 1;  // nothing may be added
  ASSERT_EQ(::setrlimit(RLIMIT_DATA, &lower), 0);
  const int64_t none = available_memory();
  ASSERT_EQ(::setrlimit(RLIMIT_DATA, &before), 0);
  EXPECT_EQ(none, 1);  // 0 would be: not known
  EXPECT_EQ(choose_hidden_place(1 << 10, 0, kCpu, 1), HiddenPlace::kMemory);
  EXPECT_EQ(choose_hidden_place(free, 0, kCpu, 1), HiddenPlace::kDisk);
  EXPECT_EQ(choose_hidden_place(free / 8, 0, kCpu, 1 << 16), HiddenPlace::kDisk);
  EXPECT_EQ(choose_hidden_place(free / 8, free / 2, kCpu, 1), HiddenPlace::kMemory);
  EXPECT_EQ(choose_hidden_place(free / 8, free, kCpu, 1), HiddenPlace::kDisk);
}

}  // namespace
}  // namespace billm
