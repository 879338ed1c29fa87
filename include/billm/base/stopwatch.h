// Wall-clock seconds.
#pragma once

#include <chrono>

namespace billm {

// Since it was made.
class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// Adds the seconds of a scope to a sum.
class ScopeSeconds {
 public:
  explicit ScopeSeconds(double* sum) : sum_(sum) {}
  ~ScopeSeconds() { *sum_ += watch_.seconds(); }
  ScopeSeconds(const ScopeSeconds&) = delete;
  ScopeSeconds& operator=(const ScopeSeconds&) = delete;

 private:
  double* sum_;
  Stopwatch watch_;
};

}  // namespace billm
