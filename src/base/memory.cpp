// See include/billm/base/memory.h. Files of the kernel that are absent or say something else count
// as no limit.
#include "billm/base/memory.h"

#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>

namespace billm {
namespace fs = std::filesystem;
namespace {

// The number behind `key` in lines of "key number".
std::optional<int64_t> find_number(const fs::path& path, const std::string& key) {
  std::ifstream file(path);
  std::string word, rest;
  for (int64_t number = 0; file >> word; std::getline(file, rest)) {
    if (word == key && file >> number) return number;
    file.clear();
  }
  return std::nullopt;
}

// The number that a file begins with; "max" is none.
std::optional<int64_t> number_of(const fs::path& path) {
  std::ifstream file(path);
  int64_t number = 0;
  if (file >> number) return number;
  return std::nullopt;
}

// How the two versions of control groups say it.
struct Hierarchy {
  const char* prefix;  // of the line of /proc/self/cgroup that ends with this process's group
  const char* mounted;
  const char *limit, *used;       // files
  const char *cached, *recently;  // keys of memory.stat: pages of files, which can be dropped
};
const Hierarchy kHierarchies[] = {
    {"0::/", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file", "active_file"},
    {":memory:/", "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
     "total_inactive_file", "total_active_file"},
};

// "user.slice/...", "" for the topmost group.
fs::path group_of(const fs::path& path, const std::string& prefix) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const size_t at = line.find(prefix);
    if (at != std::string::npos) return line.substr(at + prefix.size());
  }
  return {};
}

}  // namespace

int64_t available_memory(const fs::path& root) {
  const std::optional<int64_t> machine = find_number(root / "proc/meminfo", "MemAvailable:");
  if (!machine) return 0;
  int64_t available = *machine * 1024;
  for (const Hierarchy& hierarchy : kHierarchies) {
    const fs::path top = root / hierarchy.mounted;
    // Every group limits those in it. A container may see its own as the topmost.
    fs::path group = group_of(root / "proc/self/cgroup", hierarchy.prefix);
    for (bool more = true; more; group = group.parent_path()) {
      const fs::path files = top / group;
      const std::optional<int64_t> limit = number_of(files / hierarchy.limit);
      const std::optional<int64_t> used = number_of(files / hierarchy.used);
      if (limit && used) {
        const fs::path stat = files / "memory.stat";
        const int64_t cached = find_number(stat, hierarchy.cached).value_or(0) +
                               find_number(stat, hierarchy.recently).value_or(0);
        available = std::min(available, std::max<int64_t>(1, *limit - *used + cached));
      }
      more = !group.empty();
    }
  }
  rlimit limit{};
  if (::getrlimit(RLIMIT_DATA, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    const int64_t held = find_number(root / "proc/self/status", "VmData:").value_or(0) * 1024;
    available =
        std::min(available, std::max<int64_t>(1, static_cast<int64_t>(limit.rlim_cur) - held));
  }
  return available;
}

}  // namespace billm
