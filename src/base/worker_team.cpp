// See include/billm/base/worker_team.h.
#include "billm/base/worker_team.h"

#include <algorithm>
#include <system_error>
#include <utility>

namespace billm {
namespace {

// How often a thread looks before it sleeps: about 0.2 ms on the machines seen, more than lies
// between two pieces of a pass.
constexpr int kSpins = 5000;
// How often it only pauses: about 20 microseconds.
constexpr int kPauses = 500;

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Waits until `value` is another than `old`.
template <typename T>
void wait_for_change(const std::atomic<T>& value, T old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    if (i < kPauses) {
      pause_cpu();
    } else {
      std::this_thread::yield();  // another may need the processor to get on
    }
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

WorkerTeam::WorkerTeam(int threads) {
  for (int worker = 1; worker < threads; ++worker) {
    try {
      threads_.emplace_back([this, worker] { work(worker); });
    } catch (const std::system_error&) {
      break;  // the system allows no more
    }
  }
}

WorkerTeam::~WorkerTeam() {
  stop_ = true;
  run_.fetch_add(1, std::memory_order_release);
  run_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerTeam::work(int worker) {
  uint32_t seen = 0;
  for (;;) {
    wait_for_change(run_, seen);
    ++seen;
    if (stop_) return;
    call(worker);
    if (working_.fetch_sub(1, std::memory_order_acq_rel) == 1) working_.notify_one();
  }
}

void WorkerTeam::call(int worker) noexcept {
  try {
    (*body_)(worker);
  } catch (...) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
  }
}

void WorkerTeam::run(const std::function<void(int)>& body) {
  body_ = &body;
  working_.store(static_cast<int>(threads_.size()), std::memory_order_relaxed);
  run_.fetch_add(1, std::memory_order_release);
  run_.notify_all();
  call(0);
  for (int left = working_.load(std::memory_order_acquire); left != 0;
       left = working_.load(std::memory_order_acquire)) {
    wait_for_change(working_, left);
  }
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void WorkerTeam::barrier() {
  const uint32_t before = passed_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size()) {
    arrived_.store(0, std::memory_order_relaxed);
    passed_.fetch_add(1, std::memory_order_release);
    passed_.notify_all();
  } else {
    wait_for_change(passed_, before);
  }
}

}  // namespace billm
