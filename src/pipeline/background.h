// One piece of work at a time on a thread of its own.
#pragma once

#include <chrono>
#include <functional>
#include <future>
#include <system_error>

namespace billm {

class Background {
 public:
  // Waits for the work, whose error is lost: for an end by another error.
  ~Background() = default;
  // Throws what the work before has thrown, as wait() and check() do; once.
  void start(std::function<void()> work) {
    wait();
    try {
      work_ = std::async(std::launch::async, work);
    } catch (const std::system_error&) {
      work();  // the system allows no more threads
    }
  }
  void wait() {
    if (work_.valid()) work_.get();
  }
  // Does not wait.
  void check() {
    if (work_.valid() && work_.wait_for(std::chrono::seconds(0)) == std::future_status::ready) {
      work_.get();
    }
  }

 private:
  std::future<void> work_;  // waits for its thread when destroyed
};

}  // namespace billm
