// Threads over independent items: see include/billm/base/parallel.h.
#include "billm/base/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace billm {
namespace {
std::function<void()>& thread_start() {
  static std::function<void()> hook;
  return hook;
}
}  // namespace

int resolve_threads(int requested) {
  if (requested > 0) return requested;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

void set_thread_start(std::function<void()> hook) {
  thread_start() = std::move(hook);
  if (thread_start()) thread_start()();
}

void parallel_for(int64_t count, int threads, const std::function<void(int64_t)>& body) {
  const int64_t workers = std::min<int64_t>(count, std::max(1, threads));
  if (workers <= 1) {
    for (int64_t i = 0; i < count; ++i) body(i);
    return;
  }
  std::atomic<int64_t> next{0};
  std::exception_ptr failure;
  std::mutex mutex;
  const auto work = [&] {
    for (int64_t i = next++; i < count; i = next++) {
      try {
        body(i);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (!failure) failure = std::current_exception();
        next = count;
      }
    }
  };
  std::vector<std::thread> pool;
  for (int64_t w = 1; w < workers; ++w) {
    try {
      pool.emplace_back([&] {
        if (thread_start()) thread_start()();
        work();
      });
    } catch (const std::system_error&) {
      break;  // the system allows no more threads: those there are do the work
    }
  }
  work();
  for (std::thread& thread : pool) thread.join();
  if (failure) std::rethrow_exception(failure);
}

void parallel_parts(int64_t count, int64_t size, int threads,
                    const std::function<void(int64_t, int64_t)>& body) {
  parallel_for((count + size - 1) / size, threads,
               [&](int64_t part) { body(part * size, std::min(count, (part + 1) * size)); });
}

}  // namespace billm
