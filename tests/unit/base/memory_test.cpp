// What is left of memory, from files as the kernel writes them.
#include "billm/base/memory.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "support/environment.h"

namespace billm {
namespace {

class Memory : public testing::Test {
 protected:
  void say(const std::string& file, const std::string& text) const {
    const std::filesystem::path path = directory_.path() / file;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  int64_t available() const { return available_memory(directory_.path()); }

  test::TemporaryDirectory directory_;
};

constexpr const char* kMeminfo =
    "MemTotal:       16384000 kB\nMemFree:         1000000 kB\nMemAvailable:    8000000 kB\n"
    "HugePages_Total:       0\n";
constexpr int64_t kMachine = int64_t{8000000} * 1024;

TEST_F(Memory, OfTheMachine) {
  EXPECT_EQ(available(), 0);
  say("proc/meminfo", kMeminfo);
  EXPECT_EQ(available(), kMachine);
  say("proc/self/cgroup", "0::/\n");
  EXPECT_EQ(available(), kMachine);
  say("sys/fs/cgroup/memory.max", "max\n");
  say("sys/fs/cgroup/memory.current", "5000\n");
  EXPECT_EQ(available(), kMachine);
}

TEST_F(Memory, OfTheGroupThatHasLeastLeft) {
  say("proc/meminfo", kMeminfo);
  say("proc/self/cgroup", "0::/outer/inner\n");
  say("sys/fs/cgroup/outer/inner/memory.max", "max\n");
  say("sys/fs/cgroup/outer/inner/memory.current", "100\n");
  say("sys/fs/cgroup/outer/memory.max", "3000000000\n");
  say("sys/fs/cgroup/outer/memory.current", "2500000000\n");
  EXPECT_EQ(available(), 500000000);
  say("sys/fs/cgroup/outer/memory.stat",
      "anon 1\nfile 900000000\ninactive_file 300000000\n"
      "active_file 400000000\n");
  EXPECT_EQ(available(), 1200000000);
  say("sys/fs/cgroup/outer/inner/memory.max", "1100\n");
  EXPECT_EQ(available(), 1000);
  say("sys/fs/cgroup/outer/inner/memory.max", "50\n");
  EXPECT_EQ(available(), 1);  // known, and nothing left
  // More than the machine has.
  say("sys/fs/cgroup/outer/inner/memory.max", "90000000000\n");
  say("sys/fs/cgroup/outer/memory.max", "9223372036854771712\n");
  EXPECT_EQ(available(), kMachine);
}

TEST_F(Memory, OfAGroupOfTheFirstVersionSeenFromItsContainer) {
  say("proc/meminfo", kMeminfo);
  say("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/97da\n0::/\n");
  say("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000000\n");
  say("sys/fs/cgroup/memory/memory.usage_in_bytes", "1500000\n");
  say("sys/fs/cgroup/memory/memory.stat",
      "inactive_file 1\ntotal_inactive_file 200000\ntotal_active_file 100000\n");
  EXPECT_EQ(available(), 800000);
}

TEST(AvailableMemory, OfThisMachine) {
  EXPECT_GT(available_memory(), 1 << 20);
  EXPECT_LT(available_memory(), int64_t{1} << 50);
}

}  // namespace
}  // namespace billm
