// Threads that wait for the next piece of work by spinning: for passes of a few tokens, in which
// hundreds of pieces of 50 to 500 microseconds follow each other. parallel_for() starts its threads
// anew, which takes about 30 microseconds; a spinning thread begins within one.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace billm {

class WorkerTeam {
 public:
  // `threads` >= 1, the caller's included. Where the system allows fewer, there are fewer.
  explicit WorkerTeam(int threads);
  ~WorkerTeam();
  WorkerTeam(const WorkerTeam&) = delete;
  WorkerTeam& operator=(const WorkerTeam&) = delete;

  int size() const { return static_cast<int>(threads_.size()) + 1; }

  // Calls body(worker) for each worker in 0..size()-1, each on its own thread, 0 on the caller's,
  // and returns when all have ended; the first exception that one threw is then thrown here. One
  // call at a time.
  void run(const std::function<void(int)>& body);

  // Within a body: waits until every worker of the run has come here. Nothing may throw before.
  void barrier();

 private:
  void work(int worker);
  void call(int worker) noexcept;

  std::vector<std::thread> threads_;
  const std::function<void(int)>* body_ = nullptr;
  std::mutex mutex_;
  std::exception_ptr failure_;       // of the run
  std::atomic<uint32_t> run_{0};     // counts runs
  std::atomic<int> working_{0};      // workers that have not ended
  std::atomic<int> arrived_{0};      // at the barrier
  std::atomic<uint32_t> passed_{0};  // counts barriers
  std::atomic<bool> stop_{false};
};

}  // namespace billm
