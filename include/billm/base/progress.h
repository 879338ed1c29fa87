// Progress of long work: lines on stderr with done/total and ETA; silent under --quiet.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace billm {

class Progress {
 public:
  // `what` is the label ("quantize"), `total` the number of steps. Prints nothing if quiet.
  Progress(std::string what, int64_t total, bool quiet);
  // One step is done; `detail` is appended to the line. `skipped` steps count as done before start
  // (resume), so that the ETA comes from steps really made.
  void step(const std::string& detail = "");
  void skip(int64_t steps);

 private:
  std::string what_;
  int64_t total_, done_ = 0, skipped_ = 0;
  bool quiet_, terminal_;
  std::chrono::steady_clock::time_point start_;
};

// Peak resident memory of this process in bytes (VmHWM; 0 where /proc is absent).
int64_t peak_rss_bytes();

}  // namespace billm
