// The emulated GPU itself (tests/support/cuda_emulator.h): it reports what hardware would hang at.
#include "support/cuda_emulator.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>

namespace billm::test {
namespace {

std::string problem_of(int threads, const std::function<void(EmulatedThread&)>& body) {
  try {
    run_grid(1, 1, threads, 64, WarpOrder::kForward, body);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

TEST(CudaEmulator, ReportsWhatHardwareWouldHangAt) {
  EXPECT_EQ(problem_of(64, [](EmulatedThread& thread) { thread.sync(); }), "");
  EXPECT_EQ(problem_of(64,
                       [](EmulatedThread& thread) {
                         if (thread.index() != 40) thread.sync();
                       }),
            "deadlock: not all threads come to a barrier");
  EXPECT_EQ(problem_of(32,
                       [](EmulatedThread& thread) {
                         if (thread.index() < 16) {
                           thread.shuffle(1, 0);
                         } else {
                           thread.shuffle_xor(1, 1);
                         }
                       }),
            "lanes of a warp do different things together");
}

TEST(CudaEmulator, CopiesArriveWhenTheyAreWaitedFor) {
  alignas(16) const uint8_t source[16] = {1, 2, 3};
  EXPECT_EQ(problem_of(32,
                       [&](EmulatedThread& thread) {
                         if (thread.index() != 0) return;
                         EXPECT_EQ(thread.shared()[0], 0xff);
                         thread.copy_16(thread.shared(), source);
                         thread.commit_copies();
                         thread.commit_copies();
                         thread.wait_copies<2>();
                         EXPECT_EQ(thread.shared()[0], 0xff);
                         thread.wait_copies<1>();
                         EXPECT_EQ(thread.shared()[2], 3);
                       }),
            "");
  EXPECT_EQ(
      problem_of(32, [&](EmulatedThread& thread) { thread.copy_16(thread.shared(), source + 1); }),
      "copy_16: not aligned");
}

}  // namespace
}  // namespace billm::test
