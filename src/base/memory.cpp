// See include/billm/base/memory.h.
#include "billm/base/memory.h"

#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

namespace billm {
namespace {

constexpr int64_t kUnknown = std::numeric_limits<int64_t>::max();

// The number after `key` in a file of lines "KEY NUMBER ...".
std::optional<int64_t> number_of(const std::filesystem::path& path, const std::string& key) {
  std::ifstream file(path);
  std::string found;
  int64_t value = 0;
  while (file >> found) {
    if (found == key) return file >> value ? std::optional(value) : std::nullopt;
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return std::nullopt;
}

// What a control group leaves: its limit less the pages that cannot be dropped.
int64_t left_in(const std::filesystem::path& group, const char* limit_name, const char* held_name) {
  std::ifstream file(group / limit_name);
  int64_t limit = 0;
  if (!(file >> limit)) return kUnknown;  // no such group, or "max"
  return std::max<int64_t>(0, limit - number_of(group / "memory.stat", held_name).value_or(0));
}

// Over the group that /proc/self/cgroup names and those above it, as far as they are mounted here
// (in a container often the last one alone).
int64_t left_in_groups(std::filesystem::path group, const std::filesystem::path& mount,
                       const char* limit_name, const char* held_name) {
  int64_t left = kUnknown;
  group = group.relative_path();
  for (;; group = group.parent_path()) {
    left = std::min(left, left_in(mount / group, limit_name, held_name));
    if (group.empty()) return left;
  }
}

int64_t left_in_control_groups() {
  std::ifstream file("/proc/self/cgroup");
  int64_t left = kUnknown;
  for (std::string line; std::getline(file, line);) {  // NUMBER:CONTROLLERS:PATH
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (controllers.empty()) {
      left = std::min(left, left_in_groups(path, "/sys/fs/cgroup", "memory.max", "anon"));
    } else if (controllers == "memory") {
      left = std::min(left, left_in_groups(path, "/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                           "total_rss"));
    }
  }
  return left;
}

}  // namespace

int64_t free_memory() {
  int64_t left = left_in_control_groups();
  if (const auto kilobytes = number_of("/proc/meminfo", "MemAvailable:")) {
    left = std::min(left, *kilobytes * 1024);
  }
  rlimit limit{};
  if (::getrlimit(RLIMIT_DATA, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    const int64_t held = number_of("/proc/self/status", "VmData:").value_or(0) * 1024;
    left = std::min(left, std::max<int64_t>(0, static_cast<int64_t>(limit.rlim_cur) - held));
  }
  return left;
}

}  // namespace billm
