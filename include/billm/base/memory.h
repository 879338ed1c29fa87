// How much memory this process may still take without others' being swapped out or its being
// killed.
#pragma once

#include <cstdint>

namespace billm {

// Bytes: what the system calls available, at most what the control group (containers, batch
// systems; versions 1 and 2) and RLIMIT_DATA leave. INT64_MAX where nothing of that is known.
int64_t free_memory();

}  // namespace billm
