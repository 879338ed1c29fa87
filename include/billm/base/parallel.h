// Threads over independent items. Results never depend on the thread count: an item's work is done
// by one thread, and items must not share what they write.
#pragma once

#include <cstdint>
#include <functional>

namespace billm {

// Number of threads meant by `requested` (0: all processors this process may use).
int resolve_threads(int requested);

// Calls body(i) once for each i in [0, count), on up to `threads` threads, in any order. The first
// exception thrown by a body is rethrown here after all threads have ended.
void parallel_for(int64_t count, int threads, const std::function<void(int64_t)>& body);

// Calls body(first, end) for the parts [0, size), [size, 2 * size) ... of [0, count), likewise.
void parallel_parts(int64_t count, int64_t size, int threads,
                    const std::function<void(int64_t first, int64_t end)>& body);

// The threads for `work` of which `least` takes 0.2 ms: one below that, since starting threads
// would take longer, on a busy machine many times longer.
inline int threads_for(int64_t work, int64_t least, int threads) {
  return work < least ? 1 : threads;
}

// Called once at the start of every worker thread (and by set_thread_start itself on the calling
// thread): the Torch side sets ATen's own thread count to one there.
void set_thread_start(std::function<void()> hook);

}  // namespace billm
