// How much memory can be taken without the system running short of it.
#pragma once

#include <cstdint>
#include <filesystem>

namespace billm {

// Bytes: MemAvailable of /proc/meminfo, or less where a control group (containers, systemd) has
// less left, its cached files counted as free, or where RLIMIT_DATA leaves less. 0 if it is not
// known. `root`: where /proc and /sys
// are (tests).
int64_t available_memory(const std::filesystem::path& root = "/");

}  // namespace billm
