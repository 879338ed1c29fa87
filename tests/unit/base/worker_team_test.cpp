#include "billm/base/worker_team.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <new>
#include <numeric>

namespace billm {
namespace {

TEST(WorkerTeam, EveryWorkerRunsOnceAndTheBarrierHolds) {
  for (const int threads : {1, 2, 3, 7}) {
    WorkerTeam team(threads);
    ASSERT_EQ(team.size(), threads);
    const auto size = static_cast<size_t>(threads);
    std::vector<int> before(size, 0), sums(size, 0);
    for (int run = 1; run <= 300; ++run) {
      if (run % 100 == 0) usleep(3000);  // longer than they spin
      team.run([&](int worker) {
        const auto at = static_cast<size_t>(worker);
        before[at] += worker + 1;
        team.barrier();
        sums[at] = std::accumulate(before.begin(), before.end(), 0);
        team.barrier();
      });
      for (const int sum : sums) ASSERT_EQ(sum, run * threads * (threads + 1) / 2);
    }
  }
}

TEST(WorkerTeam, ThrowsWhatABodyThrewAndGoesOn) {
  for (const int threads : {1, 3}) {
    WorkerTeam team(threads);
    for (int thrower = 0; thrower < threads; ++thrower) {
      EXPECT_THROW(team.run([&](int worker) {
        if (worker == thrower) throw std::bad_alloc();
      }),
                   std::bad_alloc);
    }
    std::atomic<int> ran{0};
    team.run([&](int) { ++ran; });
    EXPECT_EQ(ran, threads);
  }
}

TEST(WorkerTeam, EndsWithoutHavingWorked) {
  for (int i = 0; i < 50; ++i) WorkerTeam team(3);
}

}  // namespace
}  // namespace billm
